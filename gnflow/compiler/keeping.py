"""Choose what a stage keeps for its reverse pass. What a few sums and products make again is not kept.

torch cuts the graph of a stage where the tensors to keep are smallest, and has two rules for the inputs of a matrix
product of the reverse pass. Either all of them are kept, or each may be computed again: then also softmax, from scores
of the same size. Between the two:

    kept          what takes exp, erf, a rotation: softmax, gelu, queries and keys
    made again    what takes + - * / of kept tensors, or a square: normalised features

This module imports Inductor, which takes seconds. Import it where something is compiled.

Source:   Chen et al. 2016, arXiv:1604.06174; torch's minimal cut, `torch/_functorch/partitioners.py`
Differs:  a third rule for the inputs of products
"""

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch._functorch import config
from torch._functorch.partitioners import OpTypes, get_default_op_list, min_cut_rematerialization_partition
from torch._inductor.custom_graph_pass import CustomPartitionerFn, get_hash_for_files
from torch.fx import Graph, GraphModule, Node
from torch.utils.checkpoint import CheckpointPolicy

from gnflow.compiler import nodes
from gnflow.compiler.nodes import count_elements, find_operation

aten, prims = torch.ops.aten, torch.ops.prims
CHEAP = {aten.add, aten.sub, aten.mul, aten.div, aten.neg, aten.relu, aten.clone, prims.convert_element_type}
"""The operations that are computed again."""


class KeepCostly(CustomPartitionerFn):
    """Divides the graph of a value and its derivative into a forward and a reverse graph."""

    def __call__(
        self, gm: GraphModule, joint_inputs: Sequence[object], **named: Any
    ) -> tuple[GraphModule, GraphModule]:
        """Return (forward graph, reverse graph)."""
        kinds = get_default_op_list()
        for node in _list_read_in_reverse(gm.graph, kinds):
            # A function may say itself what to keep, by `torch.utils.checkpoint`.
            if "recompute" not in node.meta and not _is_cheap(node, kinds):
                node.meta["recompute"] = CheckpointPolicy.MUST_SAVE
        with config.patch(ban_recompute_materialized_backward=False):
            return min_cut_rematerialization_partition(gm, joint_inputs, **named)

    def uuid(self) -> bytes:
        """Return what caches of compiled graphs know this code by."""
        return get_hash_for_files((__file__, nodes.__file__))


def _list_read_in_reverse(graph: Graph, kinds: OpTypes) -> Iterator[Node]:
    """Yield the tensors of the forward pass that must be in memory in the reverse pass, such as inputs of products.

    What torch merges into one loop with its inputs does not count. It merges `cat` too, but not into what follows it.
    """
    reverse: set[Node] = set()
    for node in graph.nodes:
        if node.op == "placeholder" and node.name.startswith("tangents_"):  # torch's name for cotangents
            reverse.add(node)
        if reverse.isdisjoint(node.all_input_nodes):
            continue
        reverse.add(node)
        if node.op == "call_function" and not kinds.is_fusible(node) and find_operation(node) != aten.cat:
            yield from (_skip_views(each, kinds) for each in node.all_input_nodes if each not in reverse)


def _is_cheap(node: Node, kinds: OpTypes) -> bool:
    """Tell whether a tensor is made by cheap operations alone from inputs, smaller tensors and what torch always keeps.

    torch always keeps what it never computes again: products, attention, embeddings, random numbers.
    """
    waiting, seen = [node], {node}
    while waiting:
        each = waiting.pop()
        if each.op != "call_function" or not kinds.is_recomputable(each) or count_elements(each) < count_elements(node):
            continue
        is_square = find_operation(each) == aten.pow and each.args[1] == 2
        if not (is_square or find_operation(each) in CHEAP):
            return False
        inputs = {_skip_views(given, kinds) for given in each.all_input_nodes} - seen
        seen |= inputs
        waiting += inputs
    return True


def _skip_views(node: Node, kinds: OpTypes) -> Node:
    """Return what a node is a view of."""
    while node.op == "call_function" and kinds.is_view(node):
        node = node.all_input_nodes[0]
    return node
