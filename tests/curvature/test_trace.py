import pytest
import torch
from oracles import Dense, orthogonal_signs
from problems import noise, small

from gnflow.curvature.trace import trace


@pytest.fixture(scope="module")
def dense():
    return Dense(small())


def probes(dense, count, seed):
    return [noise(dense.tree(dense.anchor), seed + i) for i in range(count)]


@pytest.mark.parametrize("kind", ["ggn", "hessian"])
def test_over_signs_that_span_everything_it_is_exact_whatever_the_sketch(dense, kind):
    matrix = dense.curvature() if kind == "ggn" else dense.hessian(small())
    for count in (1, 5):
        found = trace(dense.operator(matrix), probes(dense, count, 3), orthogonal_signs(dense))
        torch.testing.assert_close(found, matrix.trace(), rtol=1e-9, atol=1e-10)


def test_of_rank_k_it_is_exact_for_any_probes(dense):
    factor = torch.randn(len(dense.anchor), 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    matrix = factor @ factor.T
    found = trace(dense.operator(matrix), probes(dense, 3, 0), probes(dense, 1, 9))
    torch.testing.assert_close(found, matrix.trace(), rtol=1e-9, atol=0)
    short = trace(dense.operator(matrix), probes(dense, 2, 0), probes(dense, 1, 9))
    assert abs(short / matrix.trace() - 1) > 1e-3


def test_few_probes_come_close_because_of_the_sketch(dense):
    matrix = dense.curvature()
    errors = [
        abs(trace(dense.operator(matrix), probes(dense, 8, s), probes(dense, 8, 100 + s)) / matrix.trace() - 1)
        for s in range(0, 50, 10)
    ]
    assert max(errors) < 0.15
