"""Compute what is small once. Inductor computes it again for every element of what reads it.

    scalar     1 - b1^t of Adam, for every weight: pow in float64, which no vector instruction takes
    table      cosine and sine of rotary positions (time, pairs), for every row and head

Such a tensor is put into memory, where a loop over a larger tensor reads it.

This module imports Inductor, which takes seconds. Import it where something is compiled.
"""

import torch
from torch._functorch.partitioners import OpTypes, get_default_op_list
from torch._inductor.custom_graph_pass import CustomGraphPass, get_hash_for_files
from torch.fx import Graph, Node

from gnflow.compiler import nodes
from gnflow.compiler.nodes import count_elements, find_operation

aten, prims = torch.ops.aten, torch.ops.prims
COSTLY = {aten.pow, aten.exp, aten.log, aten.sin, aten.cos, aten.tanh, aten.sqrt, aten.rsqrt}
"""The operations that make a table worth its memory."""
CONSTANT = {aten.full, prims.iota}
"""The operations whose result is a constant or a number of the loop. A larger loop makes it faster than it reads it."""
TIMES = 16
"""A tensor is put into memory if what reads it has at least as many times its elements."""


class ComputeOnce(CustomGraphPass):
    """Puts the scalars and the tables of a graph into memory."""

    def __call__(self, graph: Graph) -> None:
        """Change the graph in place."""
        for node in list_small(graph):
            _put_into_memory(graph, node)

    def uuid(self) -> bytes:
        """Return what caches of compiled graphs know this code by."""
        return get_hash_for_files((__file__, nodes.__file__))


def list_small(graph: Graph) -> list[Node]:
    """List the scalars and the costly tables that a much larger tensor is computed from."""
    kinds, found, costly = get_default_op_list(), [], set[Node]()
    spans: dict[Node, int] = {}  # the most elements of a node and of all that it is computed from, back to scalars
    for node in graph.nodes:
        size, operation, given = count_elements(node), find_operation(node), node.all_input_nodes
        spans[node] = size if size == 1 else max([size, *(spans[each] for each in given)])
        if operation in COSTLY or not costly.isdisjoint(given):
            costly.add(node)
        is_computed = kinds.is_recomputable(node) and not kinds.is_view(node) and operation not in CONSTANT
        # What is computed from something larger, such as the deviation of features, belongs into the loop over that.
        if is_computed and 0 < size == spans[node] and (size == 1 or node in costly) and _is_spread(node, kinds):
            found.append(node)
    return found


def _is_spread(node: Node, kinds: OpTypes) -> bool:
    """Tell whether a much larger tensor on the same device is computed from this one, element by element."""
    device, least = node.meta["val"].device, TIMES * count_elements(node)
    waiting = list(node.users)
    while waiting:
        user = waiting.pop()
        if user.op != "call_function":
            continue
        if kinds.is_view(user):
            waiting += user.users
        elif kinds.is_fusible(user) and count_elements(user) >= least and user.meta["val"].device == device:
            return True
    return False


def _put_into_memory(graph: Graph, node: Node) -> None:
    """Let what reads a node read a contiguous copy of it in memory.

    Inductor merges a copy into its readers, but no tensor whose strides are given. These hold for a copy in that order,
    and not for a node that is a piece of a larger tensor, or has another order.
    """
    value = node.meta["val"].contiguous()
    shape, stride = list(value.shape), list(value.stride())
    with graph.inserting_before(node.next):
        copy = graph.call_function(aten.clone.default, (node,))
        ordered = graph.call_function(prims.inductor_force_stride_order.default, (copy, stride))
        stored = graph.call_function(aten.as_strided.default, (ordered, shape, stride, 0))
    for each in (copy, ordered, stored):
        each.meta["val"] = value
    node.replace_all_uses_with(stored, delete_user_cb=lambda user: user is not copy)
