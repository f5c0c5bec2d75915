"""Preconditioners of conjugate gradients, against their matrices written out in float64."""

import pytest
import torch

from gnflow import trees
from gnflow.optim.preconditioner import FLOOR, Preconditioner, arrange

SHAPES = {"matrix": (3, 4), "table": (5, 2), "vector": (6,)}
BETA = 0.8


def gradients(seed):
    generator = torch.Generator().manual_seed(seed)
    return {name: torch.randn(shape, generator=generator, dtype=torch.float64) for name, shape in SHAPES.items()}


def after(preconditioner, *seen):
    """(state, roots) after these gradients, and the order of its vectors."""
    order = arrange(SHAPES, preconditioner.turned)
    state = preconditioner.init(order.stack(seen[0]))
    for gradient in seen:
        state = preconditioner.refresh(order.stack(gradient), state)
    return state, preconditioner.take_roots(state), order


def applied(preconditioner, state, roots, order, tree):
    found = order.unstack(preconditioner.apply_inverse(order.stack(tree), roots, state))
    return {name: found[name].view(shape) for name, shape in SHAPES.items()}


def floored(squares):
    root = squares.sqrt()
    return root + FLOOR * root.square().mean().sqrt()


@pytest.mark.parametrize("count", [1, 2, 5])
def test_adams_is_the_root_of_the_mean_of_squares_without_its_bias(count):
    seen = [trees.flatten(gradients(seed)) for seed in range(count)]
    mean = sum((1 - BETA) * BETA ** (count - 1 - i) * g.square() for i, g in enumerate(seen)) / (1 - BETA**count)
    preconditioner = Preconditioner(BETA)
    made = after(preconditioner, *map(gradients, range(count)))
    expected = trees.flatten(gradients(9)) / floored(mean)
    torch.testing.assert_close(trees.flatten(applied(preconditioner, *made, gradients(9))), expected)


def test_soaps_is_the_same_in_the_eigenbases_of_the_factors_at_once():
    gradient, residual = gradients(0), gradients(9)
    preconditioner = Preconditioner(BETA, {"matrix"})
    found = applied(preconditioner, *after(preconditioner, gradient), residual)
    g = gradient["matrix"]
    left, right = torch.linalg.eigh(g @ g.mT).eigenvectors, torch.linalg.eigh(g.mT @ g).eigenvectors
    rest = torch.cat([gradient["table"].flatten(), gradient["vector"]])
    squares = torch.cat([(left.mT @ g @ right).flatten().square(), rest.square()])
    roots = floored(squares)
    both = torch.kron(left, right)
    matrix = both @ torch.diag(roots[:12]) @ both.mT
    expected = torch.linalg.solve(matrix, residual["matrix"].flatten())
    torch.testing.assert_close(found["matrix"].flatten(), expected, rtol=1e-7, atol=1e-9)
    others = torch.cat([residual["table"].flatten(), residual["vector"]]) / roots[12:]
    torch.testing.assert_close(torch.cat([found["table"].flatten(), found["vector"]]), others)


def test_it_stays_symmetric_and_positive_as_the_bases_turn():
    preconditioner = Preconditioner(BETA, {"matrix"})
    made = after(preconditioner, *map(gradients, range(4)))
    a, b = gradients(7), gradients(8)
    of_a, of_b = (applied(preconditioner, *made, tree) for tree in (a, b))
    torch.testing.assert_close(trees.dot(a, of_b), trees.dot(b, of_a))
    assert trees.dot(a, of_a) > 0
    state = made[0]
    left = state.left_basis["turned:3x4"][0]
    torch.testing.assert_close(left.mT @ left, torch.eye(3, dtype=torch.float64), rtol=0, atol=1e-12)
    assert state.first == {}


def test_what_has_no_gradient_yet_is_left_finite():
    preconditioner = Preconditioner(BETA, {"matrix"})
    made = after(preconditioner, trees.zeros(gradients(0)))
    assert all(value.isfinite().all() for value in applied(preconditioner, *made, trees.zeros(gradients(1))).values())
