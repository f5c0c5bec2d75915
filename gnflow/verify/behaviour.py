"""Check of the results of steps, on easy problems and on awkward ones."""

import torch

from gnflow import trees
from gnflow.objective import Objective, Params
from gnflow.optim.protocol import eager
from gnflow.spec.experiment import Experiment
from gnflow.verify.problems import build_bowl, build_ramp, hide_parameters
from gnflow.verify.subject import (
    STEPS,
    Make,
    Parts,
    advance,
    build_parts,
    choose_device,
    count_steps,
    draw_noise,
    draw_start,
    draw_text,
    require,
)

CONDITION = 5e3


def check_descent_on_text(experiment: Experiment, make: Make = build_parts, *, by: float = 0.0) -> None:
    """Check that the loss on tokens outside the training data falls by more than `by` nats."""
    made, steps = make(experiment, eager), count_steps(experiment)
    start = made.network.init(experiment.training.seed, choose_device(experiment))
    unseen = draw_text(experiment, 4, 99)

    def evaluate(params: Params) -> float:
        return torch.stack([made.objective.value(params, tokens) for tokens in unseen]).mean().item()

    before, after = evaluate(start), evaluate(advance(experiment, made, start, steps).params)
    require(
        after < before - by, f"after {steps} steps on text the loss is {after:.4f}, expected below {before - by:.4f}"
    )


def check_descent_on_parabola(experiment: Experiment, make: Make = build_parts, *, by: float = 0.0) -> None:
    """Check that |params - target|^2 / 2 falls by more than the part `by`."""
    _check_descent(experiment, make, 1.0, by)


def check_descent_on_ill_conditioned_quadratic(
    experiment: Experiment, make: Make = build_parts, *, by: float = 0.0
) -> None:
    """Check that a quadratic with curvatures from 1 down to 1 / 5000 falls by more than the part `by`."""
    _check_descent(experiment, make, CONDITION, by)


def _check_descent(experiment: Experiment, make: Make, condition: float, by: float) -> None:
    made, steps = make(experiment, eager), count_steps(experiment)
    start = draw_start(experiment, made.network)
    objective = build_bowl(trees.add(start, draw_noise(start, 5)), condition)
    tokens = draw_text(experiment, 1, 0)[0]
    before = objective.value(start, tokens).item()
    reached = advance(experiment, made._replace(objective=objective), start, steps)
    after, limit = objective.value(reached.params, tokens).item(), (1 - by) * before
    require(
        after < limit,
        f"on a quadratic of condition {condition:g} the value after {steps} steps is {after:.6g}, "
        f"expected below {limit:.6g}",
    )


def check_zero_gradients(experiment: Experiment, make: Make = build_parts) -> None:
    """Check that steps from a minimum, and a step from weights that are all 0, leave finite weights."""
    made = make(experiment, eager)
    start = draw_start(experiment, made.network)
    _require_finite(experiment, made, build_bowl(start), start, STEPS // 3, "a gradient of exact zeros")
    _require_finite(experiment, made, made.objective, trees.zeros(start), 1, "weights of exact zeros")


def check_rank_deficient_gradients(experiment: Experiment, make: Make = build_parts) -> None:
    """Check that the value falls and weights stay finite if each matrix has a constant gradient of rank one."""
    made = make(experiment, eager)
    start = draw_start(experiment, made.network)
    objective, tokens = build_ramp(start), draw_text(experiment, 1, 0)[0]
    reached = _require_finite(experiment, made, objective, start, STEPS // 3, "gradients of rank one")
    before, after = objective.value(start, tokens).item(), objective.value(reached, tokens).item()
    require(
        after < before, f"along gradients of rank one the value went from {before:.6g} to {after:.6g}, expected less"
    )


def check_missing_gradients(experiment: Experiment, make: Make = build_parts) -> None:
    """Check that parameters which the loss ignores move by their decay alone and do not affect the others."""
    made = make(experiment, eager)
    start = draw_start(experiment, made.network)
    hidden = sorted(made.network.hidden)
    unused = trees.pick(start, [hidden[0], *[name for name, w in start.items() if w.ndim == 1][:1]])
    objective = hide_parameters(build_bowl(trees.add(start, draw_noise(start, 5))), unused)
    aside, tokens = made._replace(objective=objective), draw_text(experiment, 1, 0)[0]
    runs = [
        advance(experiment, aside, {**start, **trees.scale(unused, factor)}, STEPS // 3).params
        for factor in (1.0, -3.0)
    ]
    for name, weight in unused.items():
        off = _measure_aside(runs[0][name], weight)
        require(off < 1e-5, f"`{name}` has no gradient, but moved by {off:.2g} of its size beyond a decay")
    for name in set(start) - set(unused):
        gap = (runs[0][name] - runs[1][name]).abs().max().item()
        require(gap == 0, f"`{name}` differs by {gap:.2g} when parameters that the loss does not depend on are changed")
    before, after = objective.value(start, tokens).item(), objective.value(runs[0], tokens).item()
    require(after < before, f"with gradients missing the value went from {before:.6g} to {after:.6g}, expected less")


def _require_finite(
    experiment: Experiment, made: Parts, objective: Objective, start: Params, steps: int, what: str
) -> Params:
    reached = advance(experiment, made._replace(objective=objective), start, steps).params
    for name, weight in reached.items():
        bad = int((~weight.isfinite()).sum())
        require(not bad, f"after {what}, {bad} of {weight.numel()} entries of `{name}` are not finite")
    return reached


def _measure_aside(moved: torch.Tensor, weight: torch.Tensor) -> float:
    """Return the norm of the part of `moved` that is no multiple of `weight`, over the norm of `weight`."""
    multiple = (moved * weight).sum() / (weight * weight).sum()
    part = torch.linalg.vector_norm(moved - multiple * weight) / torch.linalg.vector_norm(weight)
    return float(part.nan_to_num(nan=torch.inf))
