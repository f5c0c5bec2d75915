"""Preconditioners of conjugate gradients, against their matrices written out in float64."""

import problems
import pytest
import torch

from gnflow import trees
from gnflow.optim.curvature_preconditioner import CurvaturePreconditioner
from gnflow.optim.gradient_preconditioner import FLOOR, GradientPreconditioner
from gnflow.optim.preconditioner import arrange

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
    return state, preconditioner.take_scale(state, torch.zeros(())), order


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
    preconditioner = GradientPreconditioner(BETA)
    made = after(preconditioner, *map(gradients, range(count)))
    expected = trees.flatten(gradients(9)) / floored(mean)
    torch.testing.assert_close(trees.flatten(applied(preconditioner, *made, gradients(9))), expected)


def test_soaps_is_the_same_in_the_eigenbases_of_the_factors_at_once():
    gradient, residual = gradients(0), gradients(9)
    preconditioner = GradientPreconditioner(BETA, {"matrix"})
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
    preconditioner = GradientPreconditioner(BETA, {"matrix"})
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
    preconditioner = GradientPreconditioner(BETA, {"matrix"})
    made = after(preconditioner, trees.zeros(gradients(0)))
    assert all(value.isfinite().all() for value in applied(preconditioner, *made, trees.zeros(gradients(1))).values())


@pytest.mark.parametrize("damping", [0.0, 0.3])
def test_ekfacs_is_the_curvature_of_matrices_in_its_bases_and_the_diagonal_of_all_others(damping):
    network, params, tokens = problems.small()
    model, batch = problems.build(network).build_model(params), torch.stack([tokens, tokens.roll(1, 0)])
    preconditioner = CurvaturePreconditioner(0.5, network.hidden)
    order = arrange({name: w.shape for name, w in params.items()}, preconditioner.turned)
    state = preconditioner.init(order.stack(params))
    draw = lambda m: torch.rand(4, 5, generator=torch.Generator().manual_seed(m))  # noqa: E731
    state = preconditioner.observe(model, order, {}, batch, state, draw)
    scale = preconditioner.take_scale(state, torch.tensor(damping, dtype=torch.float64))
    residual = problems.noise(params, 3)
    found = order.unstack(preconditioner.apply_inverse(order.stack(residual), scale, state))
    means = [model.diagonal(draw(m), batch[m]) for m in range(2)]
    others = [name for name in params if name not in network.hidden]
    diagonal = torch.cat([sum(mean[name] for mean in means).flatten() / 2 for name in others])
    expected = torch.cat([residual[n].flatten() for n in others]) / (diagonal + 0.01 * diagonal.mean() + damping)
    torch.testing.assert_close(torch.cat([found[name].flatten() for name in others]), expected)
    stack = "turned:8x8"
    for k, name in list(enumerate(order.members[stack]))[::3]:
        matrices = state.matrices["ekfac"]
        basis = torch.kron(matrices.left_basis[stack][k], matrices.right_basis[stack][k])
        c = matrices.curvature[stack][k].flatten()
        matrix = basis @ torch.diag(c + 0.01 * c.mean() + damping) @ basis.T
        torch.testing.assert_close(
            found[name].flatten(), torch.linalg.solve(matrix, residual[name].flatten()), rtol=1e-6, atol=1e-8
        )


def test_a_block_without_matrices_has_the_diagonal_alone():
    network, params, tokens = problems.small()
    model, own = problems.build(network).build_model(params), {"embedding.weight": params["embedding.weight"]}
    preconditioner = CurvaturePreconditioner(0.5, network.hidden)
    order = arrange({name: w.shape for name, w in own.items()}, preconditioner.turned)
    draw = lambda m: torch.full((4, 5), 0.3)  # noqa: E731
    state = preconditioner.observe(model, order, {}, tokens[None], preconditioner.init(order.stack(own)), draw)
    torch.testing.assert_close(
        order.unstack(state.diagonal)["embedding.weight"], model.diagonal(draw(0), tokens)["embedding.weight"].flatten()
    )
    assert state.matrices == {}
