import pytest
import torch
from oracles import Dense, Symmetric
from problems import noise, small

from gnflow.curvature.trace import estimate_trace


def gaussian(like, count, seed):
    return [noise(like, seed + i) for i in range(count)]


@pytest.mark.parametrize("count", [1, 3, 6])
def test_over_signs_that_span_everything_it_is_exact_whatever_the_sketch(count):
    symmetric = Symmetric()
    sketch = gaussian(symmetric.tree(symmetric.eigenvalues), count, 3)
    found = estimate_trace(symmetric, sketch, symmetric.orthogonal_signs())
    torch.testing.assert_close(found, symmetric.matrix.trace(), rtol=1e-12, atol=1e-12)


def test_of_rank_k_it_is_exact_for_any_probes():
    eigenvalues = torch.zeros(25, dtype=torch.float64)
    eigenvalues[:3] = torch.tensor([4.0, 2.0, -1.0])
    symmetric = Symmetric(eigenvalues)
    like = symmetric.tree(eigenvalues)
    found = estimate_trace(symmetric, gaussian(like, 3, 0), gaussian(like, 1, 9))
    torch.testing.assert_close(found, symmetric.matrix.trace(), rtol=1e-10, atol=0)
    short = estimate_trace(symmetric, gaussian(like, 2, 0), gaussian(like, 1, 9))
    assert abs(short / symmetric.matrix.trace() - 1) > 1e-3


def test_of_a_network_few_probes_come_close_because_of_the_sketch():
    dense = Dense(small())
    matrix, like = dense.curvature(), dense.tree(dense.anchor)
    found = estimate_trace(dense.operator(matrix), gaussian(like, 16, 0), gaussian(like, 16, 100))
    assert found / matrix.trace() == pytest.approx(1.0, abs=0.05)
