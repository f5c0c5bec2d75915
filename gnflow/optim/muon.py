"""Momentum, orthogonalised by Newton-Schulz.

    M <- M + (1 - b)(G - M)
    U <- orthogonal factor of  G + b (M - G)  (Nesterov)  or of M
    W <- W - lr (scale U + decay W)          W is (m, n)

    original    scale = sqrt(max(1, m/n))
    match_rms   scale = 0.2 sqrt(max(m, n)): the update has the size of an AdamW update

A weight of several matrices fused along its rows, such as query, key and value, is `split`: each has its own U and m.

Source:   Jordan et al. 2024, kellerjordan.github.io/posts/muon; scale: Liu et al. 2025, arXiv:2502.16982
Code:     github.com/KellerJordan/Muon muon.py @ 857d1ad; torch.optim.Muon
Differs:  float32 on CPU; gradients are never written to; eps is a floor on the norm, not a summand
"""

from math import sqrt

from torch import Tensor

from gnflow.objective import Params
from gnflow.optim.arguments import described_by
from gnflow.optim.momentum import MomentumState, Scale, along_momentum, require_scale
from gnflow.optim.newton_schulz import ITERATIONS, Coefficients, orthogonalised
from gnflow.optim.protocol import Transform
from gnflow.optim.schedules import Schedule
from gnflow.spec.rules import MuonRule


@described_by(MuonRule)
def muon(
    learning_rate: float = 0.02,
    momentum: float = 0.95,
    nesterov: bool = True,
    weight_decay: float = 0.0,
    ns_steps: int = 5,
    scale: Scale = "original",
    schedule: Schedule | None = None,
    *,
    coefficients: Coefficients = "jordan",
    split: int = 1,
) -> Transform[MomentumState]:
    """Muon for a dict of matrices (m, n) or stacks of them (k, m, n). Raises ValueError in `init` for anything else.

    `coefficients` name the polynomials of the iteration; see `orthogonalised` for other `ns_steps` than they have.
    """
    require_scale("muon", scale)
    if coefficients not in ITERATIONS:
        raise ValueError(f"muon's coefficients are `jordan` or `polar_express`, not `{coefficients}`")

    def direction(followed: Params) -> Params:
        return {name: _size(u, scale) * u for name, u in orthogonalised(followed, ns_steps, coefficients).items()}

    return along_momentum("muon", direction, learning_rate, momentum, nesterov, weight_decay, schedule, split)


def _size(direction: Tensor, scale: Scale) -> float:
    m, n = direction.shape[-2:]
    return sqrt(max(1.0, m / max(n, 1))) if scale == "original" else 0.2 * sqrt(max(m, n))
