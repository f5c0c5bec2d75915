"""Momentum with every row scaled to norm 1: a matrix preconditioner that is a diagonal.

    M <- M + (1 - b)(G - M)
    U <- G + b (M - G)  (Nesterov)  or M,  each row over its norm
    W <- W - lr (scale U + decay W)          W is (m, n), a row is one output neuron

    original    scale = sqrt(max(1, m/n))
    match_rms   scale = 0.2 sqrt(n): the update has the size of an AdamW update

Source:   arXiv:2603.20527
Code:     github.com/Dominator-Index/RMNP rmnp/rmnp.py @ a662ebc
Differs:  without Nesterov it keeps the momentum, which the reference drops; no rounding to bfloat16
"""

from math import sqrt
from typing import NamedTuple

import torch
from torch import Tensor

from gnflow import trees
from gnflow.objective import Params
from gnflow.optim.muon import Scale
from gnflow.optim.protocol import Transform, counter, rate
from gnflow.optim.schedules import Schedule, constant

SMALLEST_NORM = 1e-12


class RmnpState(NamedTuple):
    """Updates made, learning rate, momentum."""

    updates: Tensor
    learning_rate: Tensor
    momentum: Params


def rmnp(
    learning_rate: float = 0.02,
    momentum: float = 0.95,
    nesterov: bool = True,
    weight_decay: float = 0.0,
    scale: Scale = "original",
    schedule: Schedule | None = None,
) -> Transform[RmnpState]:
    """RMNP for matrices (m, n) and stacks of them (k, m, n). Raises ValueError in `init` for anything else."""
    factor = schedule or constant()
    if scale not in ("original", "match_rms"):
        raise ValueError(f"rmnp's scale is `original` or `match_rms`, not `{scale}`")

    def init(params: Params) -> RmnpState:
        for name, value in params.items():
            if value.ndim not in (2, 3):
                raise ValueError(f"rmnp takes matrices and stacks of them; `{name}` has shape {tuple(value.shape)}")
        return RmnpState(counter(params), rate(learning_rate, params), trees.zeros(params))

    def averaged(gradients: Params, state: RmnpState) -> Params:
        return {name: m + (1 - momentum) * (gradients[name] - m) for name, m in state.momentum.items()}

    def ahead(gradients: Params, average: Params) -> Params:
        return {name: g + momentum * (average[name] - g) for name, g in gradients.items()} if nesterov else average

    def update(gradients: Params, state: RmnpState, params: Params) -> tuple[Params, RmnpState]:
        lr = state.learning_rate * factor(state.updates)
        average = averaged(gradients, state)
        updates = {
            name: -lr * (_size(u, scale) * rows_to_one(u) + weight_decay * params[name])
            for name, u in ahead(gradients, average).items()
        }
        return updates, RmnpState(state.updates + 1, state.learning_rate, average)

    return Transform(init, update, momentum=lambda gradients, state: ahead(gradients, averaged(gradients, state)))


def rows_to_one(x: Tensor) -> Tensor:
    """Each row over its norm; a row of zeros stays."""
    norms: Tensor = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
    return x / norms.clamp(min=SMALLEST_NORM)


def _size(direction: Tensor, scale: Scale) -> float:
    m, n = direction.shape[-2:]
    return sqrt(max(1.0, m / n)) if scale == "original" else 0.2 * sqrt(n)
