"""Momentum, orthogonalised by Newton-Schulz.

    M <- M + (1 - b)(G - M)
    U <- orthogonal factor of  G + b (M - G)  (Nesterov)  or of M
    W <- W - lr (scale U + decay W)          W is (m, n)

    original    scale = sqrt(max(1, m/n))
    match_rms   scale = 0.2 sqrt(max(m, n)): the update has the size of an AdamW update

Matrices of one shape, a wide one and a transposed tall one included, are stacked and iterated on together.

Source:   Jordan et al. 2024, kellerjordan.github.io/posts/muon; scale: Liu et al. 2025, arXiv:2502.16982
Code:     github.com/KellerJordan/Muon muon.py @ 857d1ad; torch.optim.Muon
Differs:  float32 on CPU; gradients are never written to; eps is a floor on the norm, not a summand
"""

from collections import defaultdict
from math import sqrt
from typing import Literal, NamedTuple, TypeAlias

import torch
from torch import Tensor

from gnflow import trees
from gnflow.objective import Params
from gnflow.optim.protocol import Transform, counter, rate
from gnflow.optim.schedules import Schedule, constant

# github.com/KellerJordan/Muon/blob/857d1ad/muon.py#L15
COEFFICIENTS = (3.4445, -4.7750, 2.0315)
SMALLEST_NORM = 1e-7

Scale: TypeAlias = Literal["original", "match_rms"]


class MuonState(NamedTuple):
    """Updates made, learning rate, momentum."""

    updates: Tensor
    learning_rate: Tensor
    momentum: Params


def muon(
    learning_rate: float = 0.02,
    momentum: float = 0.95,
    nesterov: bool = True,
    weight_decay: float = 0.0,
    ns_steps: int = 5,
    scale: Scale = "original",
    schedule: Schedule | None = None,
) -> Transform[MuonState]:
    """Muon for a dict of matrices (m, n) or stacks of them (k, m, n). Raises ValueError in `init` for anything else."""
    factor = schedule or constant()
    if scale not in ("original", "match_rms"):
        raise ValueError(f"muon's scale is `original` or `match_rms`, not `{scale}`")

    def init(params: Params) -> MuonState:
        for name, value in params.items():
            if value.ndim not in (2, 3):
                raise ValueError(f"muon takes matrices and stacks of them; `{name}` has shape {tuple(value.shape)}")
        return MuonState(counter(params), rate(learning_rate, params), trees.zeros(params))

    def update(gradients: Params, state: MuonState, params: Params) -> tuple[Params, MuonState]:
        lr = state.learning_rate * factor(state.updates)
        averaged = {name: m + (1 - momentum) * (gradients[name] - m) for name, m in state.momentum.items()}
        ahead = {name: g + momentum * (averaged[name] - g) for name, g in gradients.items()} if nesterov else averaged
        directions = orthogonalised(ahead, ns_steps)
        updates = {
            name: -lr * (_scaled(u, scale) + weight_decay * params[name])
            for name, u in directions.items()
        }  # fmt: skip
        return updates, MuonState(state.updates + 1, state.learning_rate, averaged)

    return Transform(init, update)


def _scaled(direction: Tensor, scale: Scale) -> Tensor:
    m, n = direction.shape[-2:]
    return direction * (sqrt(max(1.0, m / n)) if scale == "original" else 0.2 * sqrt(max(m, n)))


def orthogonalised(matrices: Params, steps: int) -> Params:
    """The orthogonal polar factor of each matrix, approximately: singular values end in [0.68, 1.13]."""
    wide = {name: _transposed_if_tall(value).reshape(-1, *sorted(value.shape[-2:])) for name, value in matrices.items()}
    groups: dict[torch.Size, list[str]] = defaultdict(list)
    for name, value in wide.items():
        groups[value.shape[-2:]].append(name)
    result: Params = {}
    for names in groups.values():
        factors = newton_schulz(torch.cat([wide[name] for name in names]), steps)
        for name, factor in zip(names, torch.split(factors, [len(wide[name]) for name in names]), strict=True):
            tall = matrices[name].shape[-2] > matrices[name].shape[-1]
            result[name] = (factor.mT if tall else factor).reshape(matrices[name].shape)
    return {name: result[name] for name in matrices}


def _transposed_if_tall(x: Tensor) -> Tensor:
    return x.mT if x.shape[-2] > x.shape[-1] else x


def newton_schulz(x: Tensor, steps: int) -> Tensor:
    """(batch, m, n) with m <= n -> X near U V' of X = U S V'; bfloat16 on GPU."""
    a, b, c = COEFFICIENTS
    dtype = x.dtype
    x = x / x.square().sum((-2, -1), keepdim=True).sqrt().clamp(min=SMALLEST_NORM)
    if x.is_cuda:
        x = x.bfloat16()
    for _ in range(steps):
        gram = x @ x.mT
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x.to(dtype)
