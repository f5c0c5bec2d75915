"""Scalars and tables that a graph computes once."""

import re

import pytest
import torch
from torch._inductor.utils import fresh_cache, run_and_get_code
from torch.fx.experimental.proxy_tensor import make_fx

from gnflow.compiler.regions import Compiled
from gnflow.compiler.tables import list_small

COUNT = torch.tensor(3)


def correct(count, **weights):
    """Divide each weight by 1 - b^t, as Adam does."""
    correction = 1 - 0.9 ** count.double()
    return {name: w / correction for name, w in weights.items()}


def turn(x):
    """Multiply (rows, pairs, time) by a table that is transposed."""
    angle = torch.outer(torch.arange(24.0), torch.tensor([1.0, 0.5, 0.25]))
    return x * angle.T.cos()


def standardize(x):
    return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + 1e-6)


def compile_and_read(function, *arguments, **named):
    with fresh_cache():
        compiled = Compiled("region", lambda: function(*arguments, **named), "default", fullgraph=True)
        result, codes = run_and_get_code(compiled)
    return result, "".join(codes)


def test_a_scalar_is_computed_once_for_all_weights_in_loops_of_vector_instructions():
    weights = {"a": torch.randn(200), "b": torch.randn(300)}
    result, code = compile_and_read(correct, COUNT, **weights)
    torch.testing.assert_close(result, correct(COUNT, **weights))
    assert len(re.findall(r"\bpow\(", code)) == 1
    assert not re.search(r"for\([^{]*x0\+=static_cast<int64_t>\(1L\)\)", code.replace("\n", " "))


def test_a_table_has_its_order_whatever_its_strides():
    x = torch.randn(50, 3, 24)
    result, code = compile_and_read(turn, x)
    torch.testing.assert_close(result, turn(x))
    assert re.search(r"empty_strided_cpu\(\(3, 24\)", code)


@pytest.mark.parametrize("cut", [lambda x: x.unbind(), lambda x: x.split([1, 3]), lambda x: x.exp().chunk(4)])
def test_a_piece_of_a_tensor_keeps_its_value(cut):
    """Such a piece is no tensor of its own in compiled code: it begins in the middle of another one."""
    x, w = torch.arange(4.0), torch.ones(64, 8)

    def scale(x, w):
        return [piece[..., None] * w for piece in cut(x) if piece.numel() == 1]

    result, _ = compile_and_read(scale, x, w)
    torch.testing.assert_close(result, scale(x, w))


@pytest.mark.parametrize(
    ("function", "shapes", "expected"),
    [
        (correct, [(), (40,)], 1),
        (correct, [(), (4,)], 0),  # The loop that reads it is short.
        (turn, [(50, 3, 24)], 1),
        (turn, [(2, 3, 24)], 0),
        (standardize, [(50, 64)], 0),  # It comes from a larger tensor, and belongs into the loop that reads that.
    ],
)
def test_only_what_is_small_and_spread_is_put_into_memory(function, shapes, expected):
    def run(*arguments):
        return function(arguments[0], w=arguments[1]) if function is correct else function(*arguments)

    graph = make_fx(run, tracing_mode="fake")(*[torch.ones(shape) for shape in shapes]).graph
    assert len(list_small(graph)) == expected
