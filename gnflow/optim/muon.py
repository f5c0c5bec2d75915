"""Momentum, orthogonalised by Newton-Schulz.

    M <- M + (1 - b)(G - M)
    U <- orthogonal factor of  G + b (M - G)  (Nesterov)  or of M
    W <- W - lr (scale U + decay W)          W is (m, n)

    original    scale = sqrt(max(1, m/n))
    match_rms   scale = 0.2 sqrt(max(m, n)): the update has the size of an AdamW update
    spectral    scale = sqrt(m/n): of inputs with root mean square 1 the outputs change by lr

    second_moment: before   V <- c V + (1 - c) G^2;  U is that of [G + b (M - G)] / (sqrt V + eps)
    second_moment: after    V <- c V + (1 - c) U^2;  U is then U / (sqrt V + eps), brought back to the norm of U
    equalize: rows          every row of what is orthogonalised is divided by its norm

A weight of several matrices fused along its rows, such as query, key and value, is `split`: each has its own U and m.

Source:   Jordan et al. 2024, kellerjordan.github.io/posts/muon; scale: Liu et al. 2025, arXiv:2502.16982; second
          moment: arXiv:2604.09967, arXiv:2507.11005; rows: arXiv:2603.28254
Code:     github.com/KellerJordan/Muon muon.py @ 857d1ad; torch.optim.Muon; pytorch_optimizer.AdaMuon
Differs:  float32 on CPU; gradients are never written to; eps is a floor on the norm, not a summand; AdaMuon's norm is
          that of U itself and not sqrt(min(m, n))
"""

from math import sqrt
from typing import Literal, TypeAlias

import torch
from torch import Tensor

from gnflow import trees
from gnflow.objective import Params
from gnflow.optim.arguments import described_by
from gnflow.optim.momentum import Direction, MomentumState, along_momentum, require_choice
from gnflow.optim.newton_schulz import ITERATIONS, Coefficients, Precision, orthogonalised
from gnflow.optim.protocol import Transform
from gnflow.optim.rmnp import rows_to_one
from gnflow.optim.schedules import Schedule
from gnflow.optim.second_moment import divided, entrywise
from gnflow.spec.rules import Cautious, MuonRule

Scale: TypeAlias = Literal["original", "match_rms", "spectral"]


@described_by(MuonRule)
def muon(
    learning_rate: float = 0.02,
    momentum: float = 0.95,
    nesterov: bool = True,
    weight_decay: float | Cautious = 0.0,
    ns_steps: int = 5,
    scale: Scale = "original",
    schedule: Schedule | None = None,
    *,
    coefficients: Coefficients = "jordan",
    split: int = 1,
    second_moment: Literal["none", "before", "after"] = "none",
    second_beta: float = 0.95,
    eps: float = 1e-8,
    equalize: Literal["none", "rows"] = "none",
    dtype: Precision = "auto",
) -> Transform[MomentumState]:
    """Muon for a dict of matrices (m, n) or stacks of them (k, m, n). Raises ValueError in `init` for anything else.

    `coefficients` name the polynomials of the iteration; see `orthogonalised` for other `ns_steps` than they have.
    """
    require_scale("muon", scale)
    require_iteration("muon", coefficients, dtype)
    require_choice("muon", "second_moment", second_moment, ("none", "before", "after"))
    require_choice("muon", "equalize", equalize, ("none", "rows"))

    def direction(followed: Params, gradients: Params, second: Params) -> tuple[Params, Params]:
        if second_moment == "before":
            second = {name: second_beta * v + (1 - second_beta) * gradients[name] ** 2 for name, v in second.items()}
            followed = {name: x / (second[name].sqrt() + eps) for name, x in followed.items()}
        if equalize == "rows":
            followed = trees.mapped(rows_to_one, followed)
        factors = orthogonalised(followed, ns_steps, coefficients, dtype)
        if second_moment == "after":
            factors, second = divided(factors, second, second_beta, eps, entrywise)
        return {name: size(u, scale) * u for name, u in factors.items()}, second

    kept = None if second_moment == "none" else torch.zeros_like
    return along_momentum(
        "muon", Direction(direction, kept), learning_rate, momentum, nesterov, weight_decay, schedule, split
    )


def size(direction: Tensor, scale: Scale) -> float:
    """The factor on an orthogonal matrix, or on a stack of them."""
    m, n = direction.shape[-2:]
    if scale == "match_rms":
        return 0.2 * sqrt(max(m, n))
    ratio = m / max(n, 1)
    return sqrt(ratio) if scale == "spectral" else sqrt(max(1.0, ratio))


def require_scale(method: str, scale: str) -> None:
    """Raises ValueError for a misspelt one."""
    require_choice(method, "scale", scale, ("original", "match_rms", "spectral"))


def require_iteration(method: str, coefficients: str, dtype: str) -> None:
    """Raises ValueError for what `orthogonalised` does not know."""
    require_choice(method, "coefficients", coefficients, tuple(ITERATIONS))
    require_choice(method, "dtype", dtype, ("auto", "float32", "bfloat16"))
