"""Muon whose rows, the output neurons, are divided by the root of a second moment of their own.

    M <- M + (1 - b)(G - M)
    O <- orthogonal factor of  G + b (M - G)  (Nesterov)  or of M
    v <- c v + (1 - c) mean of O^2 over each row
    U <- O / (sqrt v + eps),  scaled to the Frobenius norm of O
    W <- W - lr (scale U + decay W)          scale as in `muon.py`

Source:   Li et al. 2025, arXiv:2510.05491
Code:     github.com/microsoft/dion dion/normuon.py @ 0a059a4; pytorch_optimizer.NorMuon
Differs:  it takes rows for every shape, as Dion does; the published algorithm ends with `scale: match_rms`
Use:      in place of Muon, with one more number for each row. Their directions came equally close to a Gauss-Newton
          step, and both trained equally well (docs/results/oracle_gap.md)
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from gnflow.optim.arguments import add_help_of
from gnflow.spec.base import Rate
from gnflow.spec.rules import Beta, Cautious, Coefficients, IterationType, OrthogonalScale, SplitFields, WeightDecay
from gnflow.transform import Schedule, Transform

if TYPE_CHECKING:
    from gnflow.objective import Params
    from gnflow.optim.momentum import MomentumState


class NorMuonRule(SplitFields):
    """Muon with a second moment for every row, which is one output neuron (arXiv:2510.05491); for matrices only."""

    factory = "gnflow.optim.normuon:normuon"
    kind: Literal["normuon"] = "normuon"
    learning_rate: Rate = 0.01
    weight_decay: WeightDecay = 0.01
    scale: OrthogonalScale = "spectral"
    second_beta: Beta = 0.95
    """Decay rate of the second moment of the rows, per update."""


@add_help_of(NorMuonRule)
def normuon(
    learning_rate: float = 0.01,
    momentum: float = 0.95,
    second_beta: float = 0.95,
    eps: float = 1e-8,
    nesterov: bool = True,
    weight_decay: float | Cautious = 0.01,
    ns_steps: int = 5,
    scale: OrthogonalScale = "spectral",
    coefficients: Coefficients = "polar_express",
    split: int = 1,
    dtype: IterationType = "auto",
    schedule: Schedule | None = None,
) -> Transform[MomentumState]:
    """Make NorMuon for matrices (m, n) and stacks of them (k, m, n). Raises ValueError in `init` for anything else."""
    from gnflow.optim.momentum import Direction, follow_momentum
    from gnflow.optim.muon import require_iteration, set_size
    from gnflow.optim.newton_schulz import orthogonalise
    from gnflow.optim.second_moment import divide_by_root, square_rows

    require_iteration("normuon", scale, coefficients, dtype)

    def turn(followed: Params, gradients: Params, second: Params) -> tuple[Params, Params]:
        factors = orthogonalise(followed, ns_steps, coefficients, dtype)
        rows, second = divide_by_root(factors, second, second_beta, eps, square_rows)
        return {name: set_size(u, scale) for name, u in rows.items()}, second

    direction = Direction(turn, lambda weight: weight.new_zeros((*weight.shape[:-1], 1)))
    return follow_momentum("normuon", direction, learning_rate, momentum, nesterov, weight_decay, schedule, split)
