"""Multiply matrices with oneDNN on processors of AMD.

torch multiplies float32 matrices with MKL, which is made for processors of Intel. On those of AMD with AVX-512, oneDNN
is faster, which torch brings along too: it multiplied 1024 x 256 by 256 x 1024 at 1.2 times MKL's rate. MKL keeps the
products whose left matrix lies transposed in memory, as in the gradient of a weight, and the small ones: oneDNN is no
faster at these. Which library multiplies depends on shapes and strides alone, so that equal runs have equal bits.

This module imports Inductor, which takes seconds. Import it where something is compiled.
"""

from functools import cache

import torch
from torch import Tensor
from torch._inductor.custom_graph_pass import CustomGraphPass, get_hash_for_files
from torch.fx import Graph
from torch.utils.flop_counter import mm_flop, register_flop_formula

aten = torch.ops.aten
LEAST = 2**25
"""The number of multiplications of numbers from which on a product is changed."""

_NAME = "gnflow::mm"
torch.library.define(_NAME, "(Tensor left, Tensor right) -> Tensor", tags=torch.Tag.flexible_layout)


@torch.library.impl(_NAME, "cpu")
def _multiply(left: Tensor, right: Tensor) -> Tensor:
    # The operator that torch's own inference calls. It computes left @ weight', with no bias and nothing after it.
    product: Tensor = torch.ops.mkldnn._linear_pointwise.default(left, right.t(), None, "none", [], "")
    return product


@torch.library.register_fake(_NAME)  # type: ignore[untyped-decorator]  # torch leaves it untyped
def _(left: Tensor, right: Tensor) -> Tensor:
    return left.new_empty(left.shape[0], right.shape[1])


register_flop_formula(torch.ops.gnflow.mm, get_raw=True)(mm_flop)  # it takes tensors, and returns what it does for mm


class UseOneDNN(CustomGraphPass):
    """Has oneDNN compute the products at which it is the faster library of this machine."""

    def __call__(self, graph: Graph) -> None:
        """Change the graph in place."""
        if prefers_onednn():
            for node in graph.find_nodes(op="call_function", target=aten.mm.default):
                left, right = node.args
                if _is_faster(left.meta["val"], right.meta["val"]):
                    node.target = torch.ops.gnflow.mm.default

    def uuid(self) -> bytes:
        """Return what caches of compiled graphs know this code by."""
        return get_hash_for_files((__file__,), extra=str(prefers_onednn()))


@cache
def prefers_onednn() -> bool:
    """Tell whether this is a processor of AMD with AVX-512. Nothing else was measured."""
    about = torch.cpu.get_capabilities()
    is_measured = str(about.get("cpu_name")).startswith("AMD") and bool(about.get("avx512_f"))
    return is_measured and torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]  # torch leaves it untyped


def _is_faster(left: Tensor, right: Tensor) -> bool:
    """Tell whether oneDNN is the faster one for this product, of matrices without values."""
    is_float = left.device.type == "cpu" and left.dtype == torch.float32
    return is_float and left.stride(1) == 1 and left.shape[0] * right.numel() >= LEAST
