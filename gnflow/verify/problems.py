"""Objectives of plain tensors in the shapes of a model's weights. Each is its own Gauss-Newton model."""

from collections.abc import Callable

import torch
from torch import Tensor

from gnflow import trees
from gnflow.objective import Objective, Params, Scalar, Tokens, Watch
from gnflow.optim.protocol import eager
from gnflow.spec.experiment import Experiment
from gnflow.verify.subject import Make, Parts, draw_noise, draw_start


def build_bowl(target: Params, condition: float = 1.0, spread: float = 0.0) -> Objective:
    """Build <d, A d> / 2 + s <n, d>, where d = params - target.

    A multiplies matrices from the left. Its eigenvalues go from 1 down to 1 / condition, and its eigenvectors are
    random. s, of size `spread`, differs from micro-batch to micro-batch.
    """
    sides = {name: _draw_bend(w, condition) for name, w in target.items()}
    tilt = draw_noise(target, 2)

    def draw_tilt(tokens: Tokens) -> Scalar:
        return spread * (tokens.sum() % 7 - 3) / 3

    def differentiate(params: Params, tokens: Tokens) -> Params:
        displacement = trees.subtract(params, target)
        bent = {name: sides[name] * d if d.ndim == 1 else sides[name] @ d for name, d in displacement.items()}
        return {name: x + draw_tilt(tokens).to(x) * tilt[name] for name, x in bent.items()}

    def multiply(direction: Params, anchor: Params, tokens: Tokens) -> Params:
        return {name: sides[name] * d if d.ndim == 1 else sides[name] @ d for name, d in direction.items()}

    def evaluate(params: Params, tokens: Tokens) -> Scalar:
        displacement = trees.subtract(params, target)
        tilted = draw_tilt(tokens).to(next(iter(tilt.values()))) * trees.dot(tilt, displacement)
        return (trees.dot(differentiate(params, tokens), displacement) + tilted) / 2

    def diagonal(params: Params, noise: Tensor, tokens: Tokens) -> Params:
        bends = {name: side if side.ndim == 1 else side.diagonal().unsqueeze(-1) for name, side in sides.items()}
        return {name: bends[name].expand_as(w).clone() for name, w in params.items()}

    def signals(params: Params, noise: Tensor, watch: Watch, tokens: Tokens) -> dict[str, Params]:
        return {name: statistic(*_factor(sides[name], params[name])) for name, statistic in watch.statistics.items()}

    return _build_objective(evaluate, differentiate, multiply)._replace(diagonal=diagonal, signals=signals)


def build_on_bowl(experiment: Experiment, make: Make, dtype: torch.dtype = torch.float32) -> tuple[Parts, Params]:
    """Build the parts on a quadratic whose slope differs by micro-batch, and the weights to start from."""
    made = make(experiment, eager)
    start = trees.map_tensors(lambda w: w.to(dtype), draw_start(experiment, made.network))
    return made._replace(objective=build_bowl(trees.add(start, draw_noise(start, 5)), 10.0, spread=0.5)), start


def build_ramp(like: Params) -> Objective:
    """Build <a b', params>: the gradient of a matrix is always the same matrix of rank one."""
    rows, columns = draw_noise(like, 3), draw_noise(like, 4)
    rank_one = {name: w if w.ndim == 1 else torch.outer(w[:, 0], columns[name][0]) for name, w in rows.items()}
    return _build_objective(
        lambda params, tokens: trees.dot(rank_one, params),
        lambda params, tokens: trees.clone(rank_one),
        lambda direction, anchor, tokens: trees.zeros(direction),
    )._replace(
        diagonal=lambda params, noise, tokens: trees.zeros(params),
        signals=lambda params, noise, watch, tokens: {
            name: statistic(*map(torch.zeros_like, _factor(rank_one[name][:, :1], params[name])))
            for name, statistic in watch.statistics.items()
        },
    )


def hide_parameters(objective: Objective, fixed: Params) -> Objective:
    """Make an objective that ignores the parameters in `fixed`: it uses those values, and their gradients are 0."""

    def fix(params: Params) -> Params:
        return {name: fixed.get(name, value) for name, value in params.items()}

    def zero_fixed(found: tuple[Params, Scalar]) -> tuple[Params, Scalar]:
        return {name: torch.zeros_like(g) if name in fixed else g for name, g in found[0].items()}, found[1]

    return objective._replace(
        value=lambda params, tokens: objective.value(fix(params), tokens),
        gradient=lambda params, tokens: zero_fixed(objective.gradient(fix(params), tokens)),
        curved=lambda params, anchor, tokens: zero_fixed(objective.curved(fix(params), fix(anchor), tokens)),
        product=lambda direction, anchor, tokens: {
            name: torch.zeros_like(image) if name in fixed else image
            for name, image in objective.product(direction, anchor, tokens).items()
        },
        signals=lambda params, noise, watch, tokens: {
            name: trees.zeros(seen) if name in fixed else seen
            for name, seen in objective.signals(fix(params), noise, watch, tokens).items()
        },
        diagonal=lambda params, noise, tokens: {
            name: torch.zeros_like(bend) if name in fixed else bend
            for name, bend in objective.diagonal(fix(params), noise, tokens).items()
        },
    )


def _build_objective(
    value: Callable[[Params, Tokens], Scalar],
    slope: Callable[[Params, Tokens], Params],
    product: Callable[[Params, Params, Tokens], Params],
) -> Objective:
    def evaluate_model(params: Params, anchor: Params, tokens: Tokens) -> tuple[Params, Scalar]:
        whole = {**anchor, **params}
        return trees.pick(slope(whole, tokens), params), value(whole, tokens)

    return Objective(
        value,
        lambda params, tokens: (slope(params, tokens), value(params, tokens)),
        evaluate_model,
        product,
    )


def _factor(side: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """Return inputs and output gradients of rows with one token each, whose Gauss-Newton matrix is 1 x `side`."""
    values, vectors = torch.linalg.eigh(side @ side.mT)
    roots = (vectors * values.clamp(min=0) ** 0.25).mT
    units = torch.eye(weight.shape[1], dtype=weight.dtype, device=weight.device)
    rows = len(units) * len(roots)
    return units.repeat(len(roots), 1).view(rows, 1, -1), roots.repeat_interleave(len(units), 0).view(rows, 1, -1)


def _draw_bend(weight: Tensor, condition: float) -> Tensor:
    size = weight.shape[0]
    values = torch.logspace(0, -torch.log10(torch.tensor(condition)).item(), size)
    if weight.ndim == 1:
        return values.to(weight)
    basis: Tensor = torch.linalg.qr(torch.randn(size, size, generator=torch.Generator().manual_seed(size))).Q
    return (basis * values @ basis.mT).to(weight)
