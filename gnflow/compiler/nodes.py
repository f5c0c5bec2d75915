"""Facts about the nodes of a graph of torch."""

import torch
from torch.fx import Node

aten = torch.ops.aten
VIEWS = {aten.view.default, aten._unsafe_view.default, aten.reshape.default}
"""The operators that give a tensor another shape."""


def find_operation(node: Node) -> object:
    """Return the operation that a node calls, whatever the types of its arguments; None if it calls something else."""
    return getattr(node.target, "overloadpacket", None)


def count_elements(node: Node) -> int:
    """Return the number of elements of a result, or 0 if it is not a tensor."""
    value = node.meta.get("val")
    return value.numel() if isinstance(value, torch.Tensor) else 0
