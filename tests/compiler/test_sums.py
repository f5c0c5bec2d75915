"""Sums of matrix products that a graph computes inside the products."""

import re

import pytest
import torch
from torch._inductor.utils import fresh_cache, run_and_get_code

from gnflow.compiler.regions import Compiled

GENERATOR = torch.Generator().manual_seed(0)


def draw(*shape, dtype=torch.float32):
    return torch.randn(shape, generator=GENERATOR, dtype=dtype)


def double(x, times):
    for _ in range(times):
        x = x + x
    return x


def as_int(x):
    return x.view(torch.int32)


def as_float(x):
    return x.view(torch.float32)


def compile_and_count(function, *arguments):
    """Return (result, number of plain products, number of products with a start value)."""
    with fresh_cache():
        compiled = Compiled("region", function, "default", fullgraph=True)
        result, codes = run_and_get_code(compiled, *arguments)
    return result, *count_products("".join(codes))


def count_products(code):
    """Return (number of plain products, number of products with a start value)."""
    return len(re.findall(r"extern_kernels\.mm\(", code)), len(re.findall(r"extern_kernels\.addmm\(", code))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_three_products_are_added_inside_two_of_them(dtype):
    def add(q, k, v, a, b, c):
        return q @ a + k @ b + v @ c

    compiled = Compiled("region", add, "default", fullgraph=True)
    shapes = [(2, 8, 16)] * 3 + [(16, 4)] * 3
    sets = [[draw(*shape, dtype=dtype) for shape in shapes] for _ in range(2)]
    with fresh_cache():
        first, codes = run_and_get_code(compiled, *sets[0])
    assert count_products("".join(codes)) == (1, 2)
    for result, given in zip((first, compiled(*sets[1])), sets, strict=True):
        exact = add(*(each.double() for each in given))
        rounding = 8 * torch.finfo(dtype).eps
        torch.testing.assert_close(result.double(), exact, rtol=rounding, atol=8 * rounding)
    assert compiled.compilations == [1]


@pytest.mark.parametrize(
    ("function", "plain"),
    [
        pytest.param(lambda x, y, z, a: x @ a + y @ a, 2, id="two products"),
        pytest.param(lambda x, y, z, a: x @ a + y @ a + z, 2, id="another term"),
        pytest.param(lambda x, y, z, a: torch.add(x @ a + y @ a, z @ a, alpha=2), 3, id="a factor"),
        pytest.param(lambda x, y, z, a: (p := x @ a) + p + p, 1, id="one product three times"),
        pytest.param(lambda x, y, z, a: (p := x @ a, p + y @ a + z @ a), 3, id="a product that is read twice"),
        pytest.param(lambda x, y, z, a: (s := x @ a + y @ a, s + z @ a), 3, id="a sum that is read twice"),
        pytest.param(lambda x, y, z, a: (x @ a)[:, None] + (y @ a)[None] + z @ a, 3, id="all pairs of rows"),
        pytest.param(lambda x, y, z, a: x @ a + y @ a + (z @ a).mT, 3, id="a transpose"),
        pytest.param(lambda x, y, z, a: double(x @ a, 12), 1, id="doublings"),
        pytest.param(lambda x, y, z, a: (p := x @ a, (p + p) + y @ a), 2, id="one product twice, and another"),
        pytest.param(lambda x, y, z, a: as_float(as_int(x @ a) + as_int(y @ a)) + z @ a, 3, id="bits of another type"),
    ],
)
def test_other_sums_are_left_alone(function, plain):
    given = [draw(4, 16, 16) for _ in range(3)] + [draw(16, 16)]
    result, found, started = compile_and_count(function, *given)
    torch.testing.assert_close(result, function(*given), rtol=1e-5, atol=1e-4, equal_nan=True)
    assert (found, started) == (plain, 0)


@pytest.mark.parametrize(
    "function",
    [
        pytest.param(lambda x, y, a: torch.add(x @ a, y @ a, alpha=-2), id="two products"),
        pytest.param(lambda x, y, a: torch.add(y, x @ a, alpha=0.5), id="a product is added"),
        pytest.param(lambda x, y, a: torch.add(x @ a, y, alpha=0.5), id="a matrix is added to a product"),
        pytest.param(lambda x, y, a: torch.add(y, y, alpha=0.5), id="no product"),
        pytest.param(lambda x, y, a: torch.add(y, 3.0, alpha=0.5), id="a number"),
        pytest.param(lambda x, y, a: torch.add(y, y.int(), alpha=3), id="two types"),
        pytest.param(lambda x, y, a: torch.add(y, y.to(torch.int8), alpha=100), id="a type that the product overflows"),
        pytest.param(lambda x, y, a: torch.add(y.double(), y, alpha=1 / 3), id="a type that the product is rounded in"),
        pytest.param(lambda x, y, a: torch.add(x @ a, y, alpha=y[0, 0].clone()), id="a factor that is computed"),
    ],
)
def test_a_factor_of_a_sum_of_matrices_is_not_forgotten(function):
    given = [draw(16, 16) for _ in range(3)]
    result, _, _ = compile_and_count(function, *given)
    assert result.dtype == function(*given).dtype
    torch.testing.assert_close(result, function(*given), rtol=1e-5, atol=1e-4)


def test_a_sum_of_three_inside_a_larger_sum_is_changed_and_nothing_else():
    def add(x, y, z, a):
        return (x @ a + y @ a + z @ a) * 2 + x

    given = [draw(4, 16, 16) for _ in range(3)] + [draw(16, 16)]
    result, plain, started = compile_and_count(add, *given)
    torch.testing.assert_close(result, add(*given), rtol=1e-5, atol=1e-4)
    assert (plain, started) == (1, 2)
