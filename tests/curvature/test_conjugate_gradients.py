import pytest
import torch
from oracles import Symmetric
from problems import noise

from gnflow.curvature import conjugate_gradients
from gnflow.curvature.conjugate_gradients import advance, begin


def system(size=12, condition=1e3, seed=0):
    generator = torch.Generator().manual_seed(seed)
    basis = torch.linalg.qr(torch.randn(size, size, generator=generator, dtype=torch.float64)).Q
    values = torch.logspace(0, -torch.log10(torch.tensor(condition)).item(), size, dtype=torch.float64)
    return basis * values @ basis.mT, torch.randn(size, generator=generator, dtype=torch.float64)


def solved(a, b, iterations, tolerance=0.0, preconditioner=None):
    """The diagonal of a preconditioner, or its matrix."""

    def inverse(r):
        if preconditioner is None:
            return r
        return r / preconditioner if preconditioner.ndim == 1 else torch.linalg.solve(preconditioner, r)

    at = begin(b, inverse)
    for _ in range(iterations):
        at = advance(at, a @ at.direction, inverse, tolerance)
    return at


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("preconditioned", [False, True])
def test_it_finds_the_solution_of_the_system(preconditioned, seed):
    a, b = system(seed=seed)
    at = solved(a, b, 30, 1e-13, a.diagonal() if preconditioned else None)
    torch.testing.assert_close(at.solution, torch.linalg.solve(a, b), rtol=1e-8, atol=1e-8)
    torch.testing.assert_close(at.residual, b - a @ at.solution, rtol=0, atol=1e-9)


def test_after_k_iterations_it_is_the_best_point_of_the_krylov_space():
    a, b = system(condition=50.0)
    space = torch.stack([torch.linalg.matrix_power(a, k) @ b for k in range(4)], dim=1)
    best = space @ torch.linalg.solve(space.mT @ a @ space, space.mT @ b)
    torch.testing.assert_close(solved(a, b, 4).solution, best, rtol=1e-7, atol=1e-9)


def test_a_diagonal_system_takes_one_iteration_with_its_own_diagonal():
    a, b = torch.diag(torch.logspace(0, 5, 9, dtype=torch.float64)), torch.ones(9, dtype=torch.float64)
    at = solved(a, b, 5, 1e-10, a.diagonal())
    assert at.iterations.item() == 1
    torch.testing.assert_close(at.solution, b / a.diagonal())


def test_with_the_matrix_itself_for_a_preconditioner_it_takes_one_iteration():
    a, b = system()
    at = solved(a, b, 5, 1e-10, a)
    assert at.iterations.item() == 1
    torch.testing.assert_close(at.solution, torch.linalg.solve(a, b), rtol=1e-8, atol=1e-8)


def test_once_the_residual_is_small_nothing_changes():
    a, b = system(condition=10.0)
    at = solved(a, b, 20, 0.1)
    count = int(at.iterations)
    assert 1 < count < 12
    earlier = solved(a, b, count, 0.1)
    assert torch.equal(at.solution, earlier.solution)
    assert at.residual.norm() <= 0.1 * b.norm() < solved(a, b, count - 1).residual.norm()


@pytest.mark.parametrize("worst", [0.0, torch.nan, torch.inf])
def test_a_direction_without_curvature_is_not_taken(worst):
    a = torch.diag(torch.tensor([1.0, 1.0, worst], dtype=torch.float64))
    b = torch.tensor([1.0, 1.0, 1e-3], dtype=torch.float64)
    at = solved(a, b, 6)
    assert at.solution.isfinite().all()
    bent = solved(a, torch.tensor([0.0, 0.0, 1.0], dtype=torch.float64), 3)
    assert torch.equal(bent.solution, torch.zeros(3, dtype=torch.float64))
    assert bent.iterations.item() == 0


def indefinite(size=9, seed=0):
    generator = torch.Generator().manual_seed(seed)
    basis = torch.linalg.qr(torch.randn(size, size, generator=generator, dtype=torch.float64)).Q
    values = torch.tensor([4.0, 3.0, 2.0, 1.0, 0.5, 0.2, 0.1, -0.3, -2.0], dtype=torch.float64)
    return basis * values @ basis.mT, basis, torch.randn(size, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("seed", range(4))
def test_negative_curvature_later_on_ends_it_where_it_is(seed):
    """At the iterate before, which is the minimum over the directions so far and goes down."""
    a, basis, _ = indefinite(seed=seed)
    b = basis @ torch.tensor([1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 0.2, 0.2], dtype=torch.float64)
    at = solved(a, b, 30)
    count = int(at.iterations)
    assert 1 <= count < 9
    directions = [begin(b, lambda r: r)]
    for _ in range(count):
        directions.append(advance(directions[-1], a @ directions[-1].direction, lambda r: r, 0.0))
    bends = [one.direction @ a @ one.direction for one in directions]
    assert all(bend > 0 for bend in bends[:-1])
    assert bends[-1] < 0
    assert torch.equal(at.solution, directions[-1].solution)
    assert b @ at.solution > 0
    assert 0.5 * at.solution @ a @ at.solution - b @ at.solution < 0


@pytest.mark.parametrize("seed", range(4))
def test_bent_downwards_at_once_it_takes_one_step_no_longer_than_with_all_bends_turned_up(seed):
    a, basis, _ = indefinite(seed=seed)
    b = basis @ torch.tensor([0.1, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1, 1.0, 1.0], dtype=torch.float64)
    assert b @ a @ b < 0
    at = solved(a, b, 5)
    assert at.iterations.item() == 1
    length = at.solution @ b / (b @ b)
    torch.testing.assert_close(at.solution, length * b)
    upright = basis * torch.linalg.eigvalsh(a).flip(0).abs() @ basis.mT
    assert 0 < length <= b @ b / (b @ upright @ b) * (1 + 1e-12)
    assert 0.5 * at.solution @ a @ at.solution < b @ at.solution
    torch.testing.assert_close(at.residual, b - a @ at.solution)


def test_of_nothing_to_solve_the_solution_is_zero():
    a, b = system()
    at = solved(a, torch.zeros_like(b), 3)
    assert torch.equal(at.solution, torch.zeros_like(b))
    assert at.iterations.item() == 0


def test_of_a_damped_operator_it_finds_the_dense_solution_and_its_residual():
    symmetric = Symmetric(torch.linspace(0, 5, 25, dtype=torch.float64))
    b = noise(symmetric.tree(symmetric.eigenvalues), 1)
    flat = torch.cat([part.flatten() for part in b.values()])
    damped = symmetric.matrix + 0.5 * torch.eye(25, dtype=torch.float64)
    x, residual = conjugate_gradients.solve(symmetric, b, 0.5, 25)
    expected = symmetric.tree(torch.linalg.solve(damped, flat))
    torch.testing.assert_close(x, expected, rtol=1e-7, atol=1e-8)
    assert residual < 1e-8
    x, residual = conjugate_gradients.solve(symmetric, b, 0.5, 3)
    left = flat - damped @ torch.cat([part.flatten() for part in x.values()])
    torch.testing.assert_close(residual, left.norm() / flat.norm(), rtol=1e-9, atol=0)


def test_a_preconditioner_close_to_the_operator_takes_fewer_iterations_to_the_same_solution():
    symmetric = Symmetric(torch.logspace(-4, 1, 25, dtype=torch.float64))
    b = noise(symmetric.tree(symmetric.eigenvalues), 1)
    flat = torch.cat([part.flatten() for part in b.values()])
    close = symmetric.matrix + 0.003 * torch.eye(25, dtype=torch.float64)

    def invert(residual):
        return symmetric.tree(torch.linalg.solve(close, torch.cat([part.flatten() for part in residual.values()])))

    expected = symmetric.tree(torch.linalg.solve(symmetric.matrix + 0.001 * torch.eye(25, dtype=torch.float64), flat))
    x, residual = conjugate_gradients.solve(symmetric, b, 0.001, 200, 1e-10, invert)
    torch.testing.assert_close(x, expected, rtol=1e-6, atol=1e-8)
    assert residual < 1e-10
    few = [conjugate_gradients.solve(symmetric, b, 0.001, 4, 0.0, each)[1] for each in (invert, None)]
    assert few[0] < 0.2 * few[1]
