"""Prepare the sums of a graph for Inductor.

A sum of matrix products is computed inside the products, with fewer passes over the result:

    cotangent of the features that attention reads      q_ Wq + k_ Wk + v_ Wv

torch does this itself for a sum of matrices, but a model adds them after it has given them the shape (rows, time,
width). Two products are left alone, such as those of a tangent, x' W + x W': what reads them adds them in its own loop
for nothing, and a product with a start value copies that first. All of this was measured on a CPU only.

A factor is written as a product: x + alpha y as add(x, mul(alpha, y)). torch 2.13 forgets the `alpha` of an addition of
two matrices if one of them is a matrix product, and returns x + y.

This module imports Inductor, which takes seconds. Import it where something is compiled.
"""

import torch
from torch._inductor.custom_graph_pass import CustomGraphPass, get_hash_for_files
from torch.fx import Graph, Node

from gnflow.compiler import nodes
from gnflow.compiler.nodes import VIEWS, find_operation

aten, prims = torch.ops.aten, torch.ops.prims
LEAST = 3
"""The number of products from which on a sum is changed."""


class PrepareSums(CustomGraphPass):
    """Writes out factors, and replaces each sum of products by a product that begins with the sum of the others."""

    def __call__(self, graph: Graph) -> None:
        """Change the graph in place."""
        for node in graph.nodes:
            if find_operation(node) == aten.add and "alpha" in node.kwargs:
                _write_factor(graph, node)
        for node in reversed(list(graph.nodes)):
            if node.users and len(products := list_products(node)) >= LEAST:
                _replace(graph, node, products)

    def uuid(self) -> bytes:
        """Return what caches of compiled graphs know this code by."""
        return get_hash_for_files((__file__, nodes.__file__))


def _write_factor(graph: Graph, node: Node) -> None:
    (start, added), factor, dtype = node.args, node.kwargs["alpha"], node.meta["val"].dtype
    if not isinstance(added, Node):  # a number
        return
    value = added.meta["val"].to(dtype)
    with graph.inserting_before(node):
        if added.meta["val"].dtype != dtype:  # the factor counts in the type of the sum, which is wider
            added = graph.call_function(prims.convert_element_type.default, (added, dtype))
            added.meta["val"] = value
        scaled = graph.call_function(aten.mul.Tensor, (added, factor))
    scaled.meta["val"] = value * (factor.meta["val"] if isinstance(factor, Node) else factor)
    node.args, node.kwargs = (start, scaled), {}


def list_products(node: Node) -> list[Node]:
    """List the products on a CPU that a node is the sum of, in order. The list is empty if it is anything else.

    Nothing else reads the products and the sums in between.
    """
    products, waiting = list[Node](), [node]
    while waiting:
        each = waiting.pop(0)
        if each.target == aten.mm.default:
            products.append(each)
            continue
        terms = [_skip_views(term) for term in each.args if isinstance(term, Node)]
        is_sum = find_operation(each) == aten.add and not each.kwargs and len({*terms}) == 2  # t + t is no such sum
        if not is_sum or any(len(term.users) > 1 for term in terms):
            return []
        waiting[:0] = terms
    value, one = node.meta["val"], products[0].meta["val"]
    alike = all(each.meta["val"].shape == one.shape and each.meta["val"].dtype == value.dtype for each in products)
    is_broadcast = value.numel() > one.numel()
    return products if alike and not is_broadcast and value.device.type == "cpu" else []


def _skip_views(node: Node) -> Node:
    """Return what a node is another shape of, if nothing else reads that."""
    while len(node.users) == 1 and node.target in VIEWS:
        node = node.all_input_nodes[0]
    return node


def _replace(graph: Graph, node: Node, products: list[Node]) -> None:
    total, value = products[0], node.meta["val"]
    with graph.inserting_before(node):
        for each in products[1:]:
            total = graph.call_function(aten.addmm.default, (total, *each.args))
            total.meta["val"] = each.meta["val"]
        shaped = graph.call_function(aten.view.default, (total, list(value.shape)))
    shaped.meta["val"] = value
    node.replace_all_uses_with(shaped)
    graph.eliminate_dead_code()
