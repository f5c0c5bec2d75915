"""Muon on gradients that are divided by the second moment of each layer's inputs.

    every k updates:  A <- mean over tokens of x x', averaged over these observations;  P <- (A + ridge mean a I)^-1
    N <- G P                                          x: inputs of the layer, a: eigenvalues of A, W is (m, n)
    M <- M + (1 - b)(N - M)
    U <- orthogonal factor of  N + b (M - N)  (Nesterov)  or of M
    W <- W - lr (scale U + decay W)                   scale as in `muon.py`

P is one factor of K-FAC (`kfac.py`), which takes the gradients at the outputs as well.

Source:   arXiv:2604.01472
Code:     github.com/zhehangdu/Newton-Muon train_gpt_newton_muon_1.py @ df78af0
Differs:  the average of A is corrected for its first value, where the code begins at 0.001 I; a wide input has one A,
          where the code takes four blocks of it; until the first observation P is the identity
Use:      in place of Muon, for about one more gradient in each observation. Its directions came closer to a
          Gauss-Newton step than Muon's (docs/results/oracle_gap.md); three seeds do not decide whether it trains
          better. Not with `as_torch`
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated, Literal, NamedTuple

from gnflow.objective import Params, Scalar
from gnflow.optim.arguments import add_help_of
from gnflow.optim.decay import add_decay
from gnflow.spec.base import Count, Rate, Unit
from gnflow.spec.rules import (
    Beta,
    Cautious,
    Coefficients,
    IterationSteps,
    IterationType,
    MomentumFields,
    OrthogonalScale,
)
from gnflow.transform import Collect, Schedule, Signals, Transform, make_counter, make_rate

if TYPE_CHECKING:
    from torch import Tensor


class NewtonMuonRule(MomentumFields):
    """Muon on gradients divided by the second moment of a layer's inputs (arXiv:2604.01472); for matrices only."""

    factory = "gnflow.optim.newton_muon:newton_muon"
    takes_signals = True
    kind: Literal["newton_muon"] = "newton_muon"
    ridge: Rate = 0.2
    """Damping of the second moment of the inputs, as a fraction of its mean eigenvalue."""
    input_beta: Beta = 0.95
    """Decay rate of the average of the second moment of the inputs, per observation."""
    estimate_every: Annotated[Count, Unit("updates")] = 32
    """Number of updates between two observations of the inputs. One costs about as much as a gradient."""
    ns_steps: IterationSteps = 5
    """Number of Newton-Schulz iterations."""
    scale: OrthogonalScale = "original"
    """Factor on the update of an (m, n) matrix: sqrt(max(1, m/n)) for `original`, 0.2 sqrt(max(m, n)) for `match_rms`,
    sqrt(m/n) for `spectral`."""
    coefficients: Coefficients = "jordan"
    """Polynomials of the iteration, as for `muon`."""
    dtype: IterationType = "auto"
    """Type of the numbers in the iteration: `auto` is float32 on a CPU and bfloat16 on a GPU."""


class NewtonMuonState(NamedTuple):
    """Updates made, learning rate, momentum; observations made, the average of A, and P."""

    updates: Scalar
    learning_rate: Scalar
    momentum: Params
    observations: Scalar
    inputs: Params
    inverse: Params


@add_help_of(NewtonMuonRule)
def newton_muon(
    learning_rate: float = 0.02,
    momentum: float = 0.95,
    nesterov: bool = True,
    weight_decay: float | Cautious = 0.0,
    ridge: float = 0.2,
    input_beta: float = 0.95,
    estimate_every: int = 32,
    ns_steps: int = 5,
    scale: OrthogonalScale = "original",
    coefficients: Coefficients = "jordan",
    dtype: IterationType = "auto",
    schedule: Schedule | None = None,
) -> Transform[NewtonMuonState]:
    """Make Newton-Muon for matrices (m, n) and stacks (k, m, n). Raises ValueError in `init` for anything else.

    `Transform.signals` shows it the inputs of the layers.
    """
    import torch

    from gnflow import trees
    from gnflow.optim import bases
    from gnflow.optim.kronecker import follow_average, measure_inputs
    from gnflow.optim.momentum import average_gradients, choose_followed, require_matrices
    from gnflow.optim.muon import require_iteration, set_size
    from gnflow.optim.newton_schulz import orthogonalise

    require_iteration("newton_muon", scale, coefficients, dtype)

    def init(params: Params) -> NewtonMuonState:
        require_matrices("newton_muon", params)
        _, inputs = bases.begin_factors(params, sys.maxsize)
        counters = make_counter(params), make_rate(learning_rate, params)
        return NewtonMuonState(
            *counters, trees.zeros(params), make_counter(params), inputs, bases.begin_bases(inputs)
        )  # fmt: skip

    def observe(collect: Collect, state: NewtonMuonState) -> NewtonMuonState:
        seen = collect(list(state.inputs), lambda name, k: measure_inputs)
        inputs = follow_average(state.inputs, seen["inputs"], input_beta, state.observations)
        return state._replace(
            observations=state.observations + 1, inputs=inputs, inverse=trees.map_tensors(invert, inputs)
        )

    def invert(factor: Tensor) -> Tensor:
        mean = factor.diagonal(dim1=-2, dim2=-1).mean(-1).unsqueeze(-1).unsqueeze(-1)
        eye = torch.eye(factor.shape[-1], dtype=factor.dtype, device=factor.device)
        lower = torch.linalg.cholesky(torch.where(mean > 0, factor + ridge * mean * eye, eye))
        return torch.cholesky_inverse(lower)

    def find_due(state: NewtonMuonState) -> int | None:
        updates = 0 if state.updates.is_meta else int(state.updates)
        return None if updates % estimate_every else updates

    def follow(gradients: Params, state: NewtonMuonState) -> tuple[Params, Params]:
        """Return (what is orthogonalised, the momentum)."""
        divided = {name: g @ state.inverse[name] for name, g in gradients.items()}
        mean = average_gradients(divided, state.momentum, momentum)
        return choose_followed(divided, mean, momentum, nesterov), mean

    def update(gradients: Params, state: NewtonMuonState, params: Params) -> tuple[Params, NewtonMuonState]:
        lr = state.learning_rate if schedule is None else state.learning_rate * schedule(state.updates)
        followed, mean = follow(gradients, state)
        updates = {}
        for name, factor in orthogonalise(followed, ns_steps, coefficients, dtype).items():
            u, w = set_size(factor, scale), params[name]
            updates[name] = -lr * add_decay(weight_decay, u, w)
        return updates, state._replace(updates=state.updates + 1, momentum=mean)

    return Transform(
        init,
        update,
        momentum=lambda gradients, state: follow(gradients, state)[0],
        signals=Signals(observe, find_due, estimate_every),
    )
