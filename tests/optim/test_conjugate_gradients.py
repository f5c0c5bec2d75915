"""Gauss-Newton by conjugate gradients, against dense systems in float64."""

import pytest
import torch
from oracles import Dense
from problems import Problem, build, noise

from gnflow import trees
from gnflow.curvature.hessian import make_hessian_product
from gnflow.curvature.newton import expand
from gnflow.models.decoder import build_decoder
from gnflow.models.loss import compute_cross_entropy, split
from gnflow.optim.conjugate_gradients import ConjugateGradients
from gnflow.optim.curvature_preconditioner import CurvaturePreconditioner
from gnflow.optim.damping import adapt
from gnflow.optim.gauss_newton import Block, GaussNewton
from gnflow.optim.gradient_preconditioner import GradientPreconditioner
from gnflow.optim.search import FullStep, GeometricSearch
from gnflow.spec.model import Decoder

DAMPING = 0.3


def tiny(seed=0):
    """A layer of width 4 in float64, every weight moved off its initial value."""
    model = build_decoder(Decoder(layers=1, width=4, heads=2, hidden=5), 5, "plain")
    params = trees.move_along(model.init(seed), noise(model.init(seed), seed + 1), 0.1)
    tokens = torch.randint(5, (3, 4), generator=torch.Generator().manual_seed(seed))
    return Problem(model, trees.map_tensors(lambda w: w.double(), params), tokens)


def batch(problem, microbatches=2):
    return torch.stack([problem.tokens.roll(i, 0)[:2] for i in range(microbatches)])


def dense(problem, tokens, form, names=None):
    """(slope, curvature) of the mean over micro-batches, as vector and matrix, of the named parameters."""
    oracles = [Dense(problem._replace(tokens=microbatch)) for microbatch in tokens]
    slope = torch.stack([oracle.slope() for oracle in oracles]).mean(0)
    matrix = torch.stack([oracle.curvature(form) for oracle in oracles]).mean(0)
    kept = torch.cat([torch.full((w.numel(),), names is None or n in names) for n, w in problem.params.items()])
    return slope[kept], matrix[kept][:, kept]


def gauss_newton(blocks, search=None, iterations=60, damping=DAMPING, microbatches=2, preconditioner=None, **options):
    solver = ConjugateGradients(iterations, 1e-11, microbatches, preconditioner)
    made = {name: Block(names, solver) for name, names in blocks.items()}
    return GaussNewton(made, 1, search or FullStep(), damping=damping, **options)


@pytest.mark.parametrize(
    ("form", "seed", "preconditioner"),
    [("quadratic", 0, "adam"), ("quadratic", 1, "soap"), ("whitened", 1, None), ("quadratic", 0, "ekfac")],
)
def test_the_step_solves_the_damped_system(form, seed, preconditioner):
    problem = tiny(seed)
    tokens = batch(problem)
    made = {
        "adam": GradientPreconditioner(0.9),
        "soap": GradientPreconditioner(0.9, problem.model.hidden),
        "ekfac": CurvaturePreconditioner(0.9, problem.model.hidden),
    }.get(preconditioner)
    optimizer = gauss_newton({"all": tuple(problem.params)}, iterations=150, preconditioner=made)
    params, _, metrics = optimizer.step(
        build(problem.model, form), problem.params, optimizer.init(problem.params), tokens
    )
    slope, matrix = dense(problem, tokens, form)
    expected = torch.linalg.solve(matrix + DAMPING * torch.eye(len(slope), dtype=torch.float64), -slope)
    step = trees.flatten(trees.subtract(params, problem.params))
    torch.testing.assert_close(step, expected, rtol=1e-6, atol=1e-8)
    assert metrics["gn/residual"] <= 1e-10


@pytest.mark.parametrize("transposed", [(), ("blocks.0.attention.query.weight",)])
@pytest.mark.parametrize("last", [(), ("embedding.weight", "blocks.0.attention.norm.scale")])
def test_the_first_direction_is_the_preconditioned_gradient_whatever_the_order_of_the_parameters(transposed, last):
    problem = tiny()
    params = {**{n: w for n, w in problem.params.items() if n not in last}, **trees.pick(problem.params, last)}
    model, tokens = build(problem.model).build_model(params), batch(problem)
    solver = ConjugateGradients(1, 0.0, 2, CurvaturePreconditioner(0.0, problem.model.hidden, transposed))
    moved, state, _ = solver.step(model, params, solver.init(params), tokens)
    gradient = trees.scale(trees.add(*(model.gradient(params, t)[0] for t in tokens)), -0.5)
    preconditioner, order = solver.preconditioner, solver.order(params)
    scale = preconditioner.take_scale(state.statistics, torch.zeros((), dtype=torch.float64))
    found = preconditioner.apply_inverse(order.stack(gradient), scale, state.statistics)
    expected = trees.flatten({n: x.reshape(params[n].shape) for n, x in order.unstack(found).items()})
    step = trees.flatten(trees.pick(trees.subtract(moved, params), order.unstack(found)))
    torch.testing.assert_close(step / step.norm(), expected / expected.norm(), rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("damping", [8.0, 0.02])
def test_newtons_step_is_that_of_the_damped_hessian_where_this_is_positive_and_goes_down_where_not(damping):
    problem = tiny()
    tokens = batch(problem)

    def loss(params, microbatch):
        inputs, targets = split(microbatch)
        return compute_cross_entropy(problem.model.compute_logits(params, inputs), targets)

    def mean(flat):
        return torch.stack([loss(trees.unflatten(flat, problem.params), microbatch) for microbatch in tokens]).mean()

    newton = build(problem.model)._replace(curved=expand(loss), product=make_hessian_product(loss))
    optimizer = gauss_newton({"all": tuple(problem.params)}, iterations=150, damping=damping)
    params, _, metrics = optimizer.step(newton, problem.params, optimizer.init(problem.params), tokens)
    step, at = trees.flatten(trees.subtract(params, problem.params)), trees.flatten(problem.params)
    slope, matrix = torch.func.grad(mean)(at), torch.func.hessian(mean)(at)
    matrix = matrix + damping * torch.eye(len(at), dtype=torch.float64)
    least = torch.linalg.eigvalsh(matrix)[0]
    assert slope @ step < 0
    if damping > 1:
        assert least > 0
        torch.testing.assert_close(step, torch.linalg.solve(matrix, -slope), rtol=1e-6, atol=1e-8)
    else:
        assert least < 0
        assert metrics["gn/residual"] > 1e-6
        assert slope @ step + 0.5 * step @ matrix @ step < 0


def test_layerwise_each_block_solves_the_system_of_its_own():
    problem = tiny()
    tokens = batch(problem)
    optimizer = gauss_newton(problem.model.blocks)
    params, _, _ = optimizer.step(build(problem.model), problem.params, optimizer.init(problem.params), tokens)
    for names in problem.model.blocks.values():
        names = [name for name in problem.params if name in names]
        slope, matrix = dense(problem, tokens, "quadratic", names)
        expected = torch.linalg.solve(matrix + DAMPING * torch.eye(len(slope), dtype=torch.float64), -slope)
        step = trees.flatten(trees.pick(trees.subtract(params, problem.params), names))
        torch.testing.assert_close(step, expected, rtol=1e-6, atol=1e-8)


def test_the_model_loss_is_that_of_the_damped_model_at_the_solution():
    problem = tiny()
    tokens, optimizer = batch(problem), gauss_newton({"all": tuple(problem.params)}, iterations=5)
    whole = build(problem.model)
    params, _, metrics = optimizer.step(whole, problem.params, optimizer.init(problem.params), tokens)
    step = trees.subtract(params, problem.params)
    values = torch.stack([whole.curved(params, problem.params, microbatch)[1] for microbatch in tokens])
    expected = values.mean() + 0.5 * DAMPING * trees.dot(step, step)
    torch.testing.assert_close(metrics["gn/model_loss"], expected, rtol=1e-10, atol=1e-10)
    assert metrics["gn/cg_iterations"].item() == 5
    gradient = [whole.curved(params, problem.params, microbatch)[0] for microbatch in tokens]
    left = trees.flatten(trees.move_along(trees.scale(trees.add(*gradient), 0.5), step, DAMPING))
    first = trees.flatten(trees.scale(trees.add(*(whole.gradient(problem.params, t)[0] for t in tokens)), 0.5))
    torch.testing.assert_close(metrics["gn/residual"], left.norm() / first.norm(), rtol=1e-8, atol=0)


def test_the_curve_has_the_residual_of_a_solve_that_ends_there():
    problem = tiny()
    tokens, names = batch(problem), {"all": tuple(problem.params)}

    def metrics(iterations):
        optimizer = gauss_newton(names, iterations=iterations)
        return optimizer.step(build(problem.model), problem.params, optimizer.init(problem.params), tokens)[2]

    long = metrics(9)
    assert {name for name in long if name.startswith("gn/residual_")} == {f"gn/residual_{n}" for n in (1, 2, 4, 8)}
    for count in (1, 2, 4, 8):
        assert torch.equal(long[f"gn/residual_{count}"], metrics(count)["gn/residual"])


def test_a_carried_start_is_a_part_of_the_last_solution_from_the_new_anchor():
    problem = tiny()
    whole, names = build(problem.model), {"all": tuple(problem.params)}
    tokens = batch(problem, 3)
    optimizer = gauss_newton(names, GeometricSearch(3, 1), iterations=4, carry=0.9)
    params, state, metrics = optimizer.step(whole, problem.params, optimizer.init(problem.params), tokens)
    assert metrics["gn/alpha"] > 0
    goal, _, _ = gauss_newton(names, iterations=4).step(
        whole, problem.params, optimizer.init(problem.params), tokens[:2]
    )
    expected = trees.move_along(params, trees.subtract(goal, problem.params), 0.9)
    torch.testing.assert_close(state.point, expected, rtol=1e-9, atol=1e-10)


def test_a_better_start_reaches_the_same_solution():
    problem = tiny()
    whole, tokens = build(problem.model), batch(problem)
    optimizer = gauss_newton({"all": tuple(problem.params)})
    state = optimizer.init(problem.params)
    cold, _, _ = optimizer.step(whole, problem.params, state, tokens)
    near = state._replace(point=trees.move_along(cold, noise(cold, 3), 1e-2))
    warm, _, _ = optimizer.step(whole, problem.params, near, tokens)
    torch.testing.assert_close(warm, cold, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize(
    ("gain", "factor"),
    [(0.1, 1.5), (-3.0, 1.5), (torch.nan, 1.5), (0.25, 1.0), (0.5, 1.0), (0.75, 1.0), (0.76, 2 / 3), (2.0, 2 / 3)],
)
def test_the_damping_follows_the_gain_ratio(gain, factor):
    damping = adapt(torch.tensor(0.6, dtype=torch.float64), torch.tensor(gain))
    assert damping.item() == pytest.approx(0.6 * factor)
    assert adapt(torch.tensor(1e-8), torch.tensor(1.0)).item() == pytest.approx(1e-8)


def test_the_damping_of_the_next_step_is_the_one_that_was_adapted():
    problem = tiny()
    whole, tokens = build(problem.model), batch(problem)
    optimizer = gauss_newton({"all": tuple(problem.params)}, iterations=3, damping=10.0)
    params, state = problem.params, optimizer.init(problem.params)
    damping = torch.tensor(10.0, dtype=torch.float64)
    for _ in range(3):
        params, state, metrics = optimizer.step(whole, params, state, tokens)
        torch.testing.assert_close(metrics["gn/damping"], damping)
        damping = adapt(damping, metrics["gn/gain_ratio"])
    torch.testing.assert_close(state.memory["gn/damping"], damping)
    assert damping < 10


def test_every_iteration_is_a_serial_pass():
    blocks = {"a": ("x",), "b": ("y",)}
    whole = gauss_newton({"all": ("x", "y")}, GeometricSearch(5, 2), iterations=7, microbatches=3)
    assert (whole.cost.solve, whole.cost.search, whole.cost.passes) == (3, 2, 1 + 7 + 1)
    apart = gauss_newton(blocks, iterations=7, microbatches=3)
    assert apart.cost.passes == 1 + 7 + 1


def test_without_damping_there_is_nothing_to_remember():
    optimizer = gauss_newton({"all": ("x",)}, damping=0.0)
    assert optimizer.init({"x": torch.ones(3)}).memory == {}
