"""Momentum, orthogonalised by Newton-Schulz.

    M <- M + (1 - b)(G - M)
    U <- orthogonal factor of  G + b (M - G)  (Nesterov)  or of M
    W <- W - lr (scale U + decay W)          W is (m, n)

    original    scale = sqrt(max(1, m/n))
    match_rms   scale = 0.2 sqrt(max(m, n)): the update has the size of an AdamW update
    spectral    scale = sqrt(m/n): for inputs with root mean square 1, the outputs change by at most lr

    unbiased                U is the factor of  b M / (1 - b^(t+1)) + (1 - b) G / (1 - b^t)
    second_moment: before   V <- c V + (1 - c) G^2;  U is the factor of [G + b (M - G)] / (sqrt V + eps)
    second_moment: after    V <- c V + (1 - c) U^2;  U <- U / (sqrt V + eps), scaled to the norm that U had
    equalize: rows          every row of the matrix that is orthogonalised is divided by its norm first

A weight that consists of several matrices along its rows, such as query, key and value, is `split`: each matrix has its
own U and m.

Source:   Jordan et al. 2024, kellerjordan.github.io/posts/muon; scale: Liu et al. 2025, arXiv:2502.16982; second
          moment: arXiv:2604.09967 (before: Muon squared), arXiv:2507.11005 (after: AdaMuon); rows: arXiv:2603.28254
          (MuonEq-R)
Code:     github.com/KellerJordan/Muon muon.py @ 857d1ad; torch.optim.Muon; optax.contrib.muon (unbiased);
          pytorch_optimizer.AdaMuon
Differs:  float32 on a CPU; gradients are never written to; eps is a floor on the norm, not a summand; AdaMuon's norm is
          that of U itself and not sqrt(min(m, n)), and it takes no sign before the iteration
Use:      the matrices of a transformer. At its best batch it needed the fewest FLOPs of five methods
          (docs/results/batch_size.md)
"""

from math import sqrt
from typing import Literal

import torch
from torch import Tensor

from gnflow import trees
from gnflow.objective import Params
from gnflow.optim.arguments import add_help_of
from gnflow.optim.momentum import Direction, MomentumState, follow_momentum, require_choice
from gnflow.optim.newton_schulz import ITERATIONS, Coefficients, IterationType, orthogonalise
from gnflow.optim.protocol import Transform
from gnflow.optim.rmnp import normalise_rows
from gnflow.optim.schedules import Schedule
from gnflow.optim.second_moment import divide_by_root, square_entries
from gnflow.spec.rules import Cautious, MuonRule, OrthogonalScale


@add_help_of(MuonRule)
def muon(
    learning_rate: float = 0.02,
    momentum: float = 0.95,
    nesterov: bool = True,
    weight_decay: float | Cautious = 0.0,
    ns_steps: int = 5,
    scale: OrthogonalScale = "original",
    schedule: Schedule | None = None,
    *,
    coefficients: Coefficients = "jordan",
    split: int = 1,
    second_moment: Literal["none", "before", "after"] = "none",
    second_beta: float = 0.95,
    eps: float = 1e-8,
    equalize: Literal["none", "rows"] = "none",
    dtype: IterationType = "auto",
    unbiased: bool = False,
) -> Transform[MomentumState]:
    """Make Muon for matrices (m, n) and stacks of them (k, m, n). Raises ValueError in `init` for anything else.

    `orthogonalise` says what happens if `ns_steps` is not the number of polynomials in the set `coefficients`.
    """
    require_iteration("muon", scale, coefficients, dtype)
    require_choice("muon", "second_moment", second_moment, ("none", "before", "after"))
    require_choice("muon", "equalize", equalize, ("none", "rows"))

    def turn(followed: Params, gradients: Params, second: Params) -> tuple[Params, Params]:
        if second_moment == "before":
            second = {name: second_beta * v + (1 - second_beta) * gradients[name] ** 2 for name, v in second.items()}
            followed = {name: x / (second[name].sqrt() + eps) for name, x in followed.items()}
        if equalize == "rows":
            followed = trees.map_tensors(normalise_rows, followed)
        factors = orthogonalise(followed, ns_steps, coefficients, dtype)
        if second_moment == "after":
            factors, second = divide_by_root(factors, second, second_beta, eps, square_entries)
        return {name: set_size(u, scale) for name, u in factors.items()}, second

    direction = Direction(turn, None if second_moment == "none" else torch.zeros_like)
    return follow_momentum(
        "muon", direction, learning_rate, momentum, nesterov, weight_decay, schedule, split, unbiased
    )


def set_size(factor: Tensor, scale: OrthogonalScale) -> Tensor:
    """Multiply an orthogonal matrix, or each in a stack of them, by its size."""
    m, n = factor.shape[-2:]
    ratio = m / max(n, 1)
    sizes = {"original": sqrt(max(1.0, ratio)), "match_rms": 0.2 * sqrt(max(m, n)), "spectral": sqrt(ratio)}
    return factor if sizes[scale] == 1 else sizes[scale] * factor


def require_iteration(method: str, scale: str, coefficients: str, dtype: str) -> None:
    """Raise ValueError for a scale, a set of coefficients or a type that does not exist."""
    require_choice(method, "scale", scale, ("original", "match_rms", "spectral"))
    require_choice(method, "coefficients", coefficients, tuple(ITERATIONS))
    require_choice(method, "dtype", dtype, ("auto", "float32", "bfloat16"))
