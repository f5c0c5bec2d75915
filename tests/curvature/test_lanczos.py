import pytest
import torch
from oracles import Dense
from problems import noise, small

from gnflow.curvature.lanczos import run_lanczos


@pytest.fixture(scope="module")
def dense():
    return Dense(small())


@pytest.fixture(scope="module", params=["ggn", "hessian"])
def matrix(request, dense):
    return dense.curvature() if request.param == "ggn" else dense.hessian(small())


def test_the_ends_of_the_spectrum_are_those_of_the_dense_matrix(dense, matrix):
    ritz = run_lanczos(dense.operator(matrix), noise(dense.tree(dense.anchor), 1), 60)
    expected = torch.linalg.eigvalsh(matrix).flip(0)
    torch.testing.assert_close(ritz.values[:4], expected[:4], rtol=1e-8, atol=0)
    assert (ritz.values <= expected[0] * (1 + 1e-12)).all()
    assert (ritz.values >= expected[-1] - 1e-12 * expected[0]).all()


@pytest.mark.parametrize("iterations", [1, 5, 12])
def test_an_eigenvalue_lies_within_the_bound_of_every_ritz_value(dense, matrix, iterations):
    ritz = run_lanczos(dense.operator(matrix), noise(dense.tree(dense.anchor), 2), iterations)
    expected = torch.linalg.eigvalsh(matrix)
    nearest = (ritz.values[:, None] - expected).abs().amin(1)
    assert len(ritz.values) == iterations
    assert (nearest <= ritz.errors + 1e-12 * expected[-1]).all()
    assert (ritz.errors > 0).all()


def test_in_float32_vectors_stay_orthogonal_and_no_ghosts_appear():
    eigenvalues = torch.cat([torch.tensor([1e3, 1e2, 1e1]), torch.linspace(1e-3, 1, 297)])
    start = {"x": torch.ones(300)}
    ritz = run_lanczos(lambda v: {"x": eigenvalues * v["x"]}, start, 60)
    torch.testing.assert_close(ritz.values[:3], eigenvalues[:3].double(), rtol=1e-5, atol=0)
    assert ritz.values[3] < 1.001


def test_it_stops_where_the_krylov_space_is_exhausted():
    eigenvalues = torch.tensor([3.0, 3.0, 1.0, 1.0, 0.0], dtype=torch.float64)
    ritz = run_lanczos(lambda v: {"x": eigenvalues * v["x"]}, {"x": torch.ones(5, dtype=torch.float64)}, 5)
    torch.testing.assert_close(ritz.values, torch.tensor([3.0, 1.0, 0.0], dtype=torch.float64))
    zero = run_lanczos(lambda v: {"x": 0 * v["x"]}, {"x": torch.ones(5)}, 5)
    assert zero.values.tolist() == [0.0]
