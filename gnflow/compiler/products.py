"""Let oneDNN compute matrix products on processors of AMD.

torch multiplies float32 matrices with MKL, which is made for processors of Intel. torch also contains oneDNN. On
processors of AMD with AVX-512 this is faster for many products: it multiplied 1024 x 256 by 256 x 1024 at 1.2 times
the rate of MKL. MKL keeps these:

    a transposed left matrix, as in the gradient of a weight        oneDNN is no faster
    fewer than 2^25 multiplications, fewer than 16 rows or columns  oneDNN is no faster or slower
    a right matrix that is a part of another one                    oneDNN is a thousand times slower
    a product that is concatenated with others                      MKL writes it into the result

The choice depends on the processor, on shapes and on strides, so that equal runs have equal bits.

This module imports Inductor, which takes seconds. Import it where something is compiled.
"""

from functools import cache

import torch
from torch import Tensor
from torch._inductor.custom_graph_pass import CustomGraphPass, get_hash_for_files
from torch.fx import Graph, Node

from gnflow.compiler import nodes
from gnflow.compiler.nodes import VIEWS, find_operation

aten = torch.ops.aten
LEAST, FEWEST = 2**25, 16
"""The numbers of multiplications, and of rows and columns, from which on oneDNN computes a product."""

_NAME = "gnflow::mm"
torch.library.define(_NAME, "(Tensor left, Tensor right) -> Tensor", tags=torch.Tag.flexible_layout)


@torch.library.impl(_NAME, "cpu")
def _multiply(left: Tensor, right: Tensor) -> Tensor:
    if not _is_whole(right):  # Inductor may choose other strides than those that the pass saw
        right = right.contiguous()
    # The operator that torch's own inference calls. It computes left @ weight', with no bias and nothing after it.
    product: Tensor = torch.ops.mkldnn._linear_pointwise.default(left, right.t(), None, "none", [], "")
    return product


@torch.library.register_fake(_NAME)  # type: ignore[untyped-decorator]  # torch leaves it untyped
def _(left: Tensor, right: Tensor) -> Tensor:
    return left.new_empty(left.shape[0], right.shape[1])


class UseOneDNN(CustomGraphPass):
    """Replaces the products that oneDNN computes faster on this machine."""

    def __call__(self, graph: Graph) -> None:
        """Change the graph in place."""
        if prefers_onednn():
            for node in graph.find_nodes(op="call_function", target=aten.mm.default):
                left, right = node.args
                if _is_faster(left.meta["val"], right.meta["val"]) and not _is_joined(node):
                    node.target = torch.ops.gnflow.mm.default

    def uuid(self) -> bytes:
        """Return what caches of compiled graphs know this code by."""
        return get_hash_for_files((__file__, nodes.__file__), extra=str(prefers_onednn()))


@cache
def prefers_onednn() -> bool:
    """Tell whether this is a processor of AMD with AVX-512. Nothing else was measured."""
    about = torch.cpu.get_capabilities()
    is_measured = str(about.get("cpu_name")).startswith("AMD") and bool(about.get("avx512_f"))
    return is_measured and torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]  # torch leaves it untyped


def _is_faster(left: Tensor, right: Tensor) -> bool:
    """Tell whether oneDNN is the faster one for this product, of matrices without values."""
    rows, columns = left.shape[0], right.shape[1]
    is_float = left.device.type == "cpu" and left.dtype == torch.float32
    is_large = rows * right.numel() >= LEAST and min(rows, columns) >= FEWEST
    return is_float and is_large and left.stride(1) == 1 and _is_whole(right)


def _is_whole(matrix: Tensor) -> bool:
    """Tell whether a matrix lies in memory by rows or by columns, without gaps."""
    return matrix.is_contiguous() or matrix.t().is_contiguous()


def _is_joined(node: Node) -> bool:
    """Tell whether a product, or another shape of it, is concatenated with something."""
    return any(find_operation(user) == aten.cat or (user.target in VIEWS and _is_joined(user)) for user in node.users)
