"""Muon whose rows, the output neurons, are divided by the root of a second moment of their own.

    M <- M + (1 - b)(G - M)
    O <- orthogonal factor of  G + b (M - G)  (Nesterov)  or of M
    v <- c v + (1 - c) mean of O^2 over each row
    U <- O / (sqrt v + eps),  brought back to the Frobenius norm of O
    W <- W - lr (scale U + decay W)          scale as in `muon.py`

Source:   Li et al. 2025, arXiv:2510.05491
Code:     github.com/microsoft/dion dion/normuon.py @ 0a059a4; pytorch_optimizer.NorMuon
Differs:  rows whatever the shape, as in Dion; the published algorithm ends with `scale: match_rms`
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from gnflow.optim.arguments import described_by
from gnflow.spec.base import Count, Rate
from gnflow.spec.rules import Beta, Cautious, MatrixMethod, WeightDecay
from gnflow.transform import Schedule, Transform

if TYPE_CHECKING:
    from gnflow.objective import Params
    from gnflow.optim.momentum import MomentumState
    from gnflow.optim.muon import Scale
    from gnflow.optim.newton_schulz import Coefficients, Precision


class NorMuon(MatrixMethod):
    """Muon with a second moment for every row, one output neuron (arXiv:2510.05491); for matrices only."""

    factory = "gnflow.optim.normuon:normuon"
    has_momentum = True
    kind: Literal["normuon"] = "normuon"
    learning_rate: Rate = 0.01
    """Step size."""
    momentum: Beta = 0.95
    """Decay of the momentum."""
    second_beta: Beta = 0.95
    """Decay of the second moment of the rows."""
    eps: Rate = 1e-8
    """Added to the root of the second moment."""
    nesterov: bool = True
    """Look one step ahead along the momentum."""
    weight_decay: WeightDecay = 0.01
    """Decoupled decay, multiplied by the learning rate. `cautious` decays only what it moves the way of the update."""
    ns_steps: Annotated[int, Field(ge=1, le=20)] = 5
    """Newton-Schulz iterations."""
    scale: Literal["original", "match_rms", "spectral"] = "spectral"
    """Size of the update of an (m, n) matrix: `original` sqrt(max(1, m/n)), `match_rms` 0.2 sqrt(max(m, n)), `spectral`
    sqrt(m/n)."""
    coefficients: Literal["jordan", "polar_express", "convergent"] = "polar_express"
    """Polynomials of the iteration, as in `muon`."""
    split: Count = 1
    """Matrices fused along the rows of each weight, orthogonalised one by one: 3 for a fused query, key and value."""
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    """Type of the numbers in the iteration: `auto` is float32 on a CPU and bfloat16 on a GPU."""


@described_by(NorMuon)
def normuon(
    learning_rate: float = 0.01,
    momentum: float = 0.95,
    second_beta: float = 0.95,
    eps: float = 1e-8,
    nesterov: bool = True,
    weight_decay: float | Cautious = 0.01,
    ns_steps: int = 5,
    scale: Scale = "spectral",
    coefficients: Coefficients = "polar_express",
    split: int = 1,
    dtype: Precision = "auto",
    schedule: Schedule | None = None,
) -> Transform[MomentumState]:
    """NorMuon for matrices (m, n) and stacks of them (k, m, n). Raises ValueError in `init` for anything else."""
    from gnflow.optim.momentum import Direction, along_momentum
    from gnflow.optim.muon import require_iteration, require_scale, size
    from gnflow.optim.newton_schulz import orthogonalised
    from gnflow.optim.second_moment import by_row, divided

    require_scale("normuon", scale)
    require_iteration("normuon", coefficients, dtype)

    def direction(followed: Params, gradients: Params, second: Params) -> tuple[Params, Params]:
        factors = orthogonalised(followed, ns_steps, coefficients, dtype)
        rows, second = divided(factors, second, second_beta, eps, by_row)
        return {name: size(u, scale) * u for name, u in rows.items()}, second

    kept = Direction(direction, lambda weight: weight.new_zeros((*weight.shape[:-1], 1)))
    return along_momentum("normuon", kept, learning_rate, momentum, nesterov, weight_decay, schedule, split)
