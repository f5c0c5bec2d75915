"""The GPU's kernel on the CPU, by Triton's interpreter, against the tangent of plain attention: `make kernels`."""

import os

import pytest
import torch

from gnflow.models.attention import attend_plain

pytest.importorskip("triton", reason="triton is not installed: `make kernels` does so in .gnflow/")
if os.environ.get("TRITON_INTERPRET") != "1":
    pytest.skip("TRITON_INTERPRET=1 is not set: `make kernels` sets it", allow_module_level=True)

import numpy as np
import triton.language as tl
from triton.runtime.interpreter import InterpreterBuilder, TensorHandle

from gnflow.models.attention_tangent_triton import compute_in_one_pass

SHAPES = [(1, 1, 1, 4), (2, 2, 5, 16), (1, 2, 64, 64), (2, 1, 65, 24), (1, 1, 130, 48), (1, 2, 33, 96), (1, 1, 20, 256)]
"""(rows, heads, time, size)"""


@pytest.fixture(autouse=True)
def bfloat16_is_multiplied_as_numbers(monkeypatch):
    """The interpreter multiplies its bits as if they were integers."""
    dot = InterpreterBuilder.create_dot

    def widened(handle):
        if handle.dtype.scalar != tl.bfloat16:
            return handle
        return TensorHandle((handle.data.astype(np.uint32) << 16).view(np.float32), tl.float32)

    monkeypatch.setattr(
        InterpreterBuilder, "create_dot", lambda self, a, b, *rest: dot(self, widened(a), widened(b), *rest)
    )


def laid_out(x, layout):
    """The same numbers with other strides."""
    match layout:
        case "time first":
            return x.transpose(1, 2).contiguous().transpose(1, 2)
        case "every second row":
            return x.repeat_interleave(2, dim=0)[::2]
        case "features apart":
            return x.mT.contiguous().mT
        case _:
            return x


def compared(shape, dtype=torch.float32, layout="contiguous"):
    """(the kernel's tangent, that of plain attention in float64 on the same numbers)"""
    parts = [torch.randn(shape).to(dtype) for _ in range(6)]
    exact = [part.double() for part in parts]
    out, expected = torch.func.jvp(attend_plain, tuple(exact[:3]), tuple(exact[3:]))
    primal = laid_out(out.to(dtype), "time first")  # as torch's fused kernels lay it out
    found = compute_in_one_pass(*(laid_out(part, layout) for part in parts), primal)
    assert found.dtype == dtype
    assert found.stride() == torch.empty_like(primal).stride(), "as the operator promises a compiler"
    return found.double(), expected


@pytest.mark.parametrize("precision", ["highest", "high"])
@pytest.mark.parametrize("shape", SHAPES)
def test_in_float32(shape, precision):
    torch.set_float32_matmul_precision(precision)
    try:
        torch.testing.assert_close(*compared(shape), rtol=1e-4, atol=1e-5)
    finally:
        torch.set_float32_matmul_precision("highest")


@pytest.mark.parametrize("shape", SHAPES)
def test_in_bfloat16(shape):
    torch.testing.assert_close(*compared(shape, torch.bfloat16), rtol=3e-2, atol=4e-2)


@pytest.mark.parametrize("layout", ["time first", "every second row", "features apart"])
def test_with_other_strides(layout):
    torch.testing.assert_close(*compared((2, 3, 37, 24), layout=layout), rtol=1e-4, atol=1e-5)


def test_scores_that_are_large_do_not_overflow():
    parts = [30 * torch.randn(1, 1, 40, 16) for _ in range(6)]
    exact = [part.double() for part in parts]
    out, expected = torch.func.jvp(attend_plain, tuple(exact[:3]), tuple(exact[3:]))
    found = compute_in_one_pass(*parts, out.float()).double()
    assert (found - expected).norm() < 1e-4 * expected.norm()
