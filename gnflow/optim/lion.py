"""The sign of an interpolated momentum.

    U <- sign(b1 M + (1 - b1) G)
    W <- W - lr (U + decay W)
    M <- b2 M + (1 - b2) G

Source:   Chen et al. 2023, arXiv:2302.06675
Code:     github.com/google/automl lion/lion_pytorch.py; pytorch_optimizer.Lion
Differs:  the decay is added to the sign, where the code multiplies the weights first, which differs by a rounding
Use:      where memory is short: it keeps one moment, AdamW two. No study here trains with it
"""

from __future__ import annotations

from typing import Annotated, Literal, NamedTuple

from pydantic import Strict

from gnflow.objective import Params, Scalar
from gnflow.optim.arguments import add_help_of
from gnflow.optim.decay import add_decay
from gnflow.spec.base import Rate
from gnflow.spec.rules import Beta, Cautious, FirstOrder, WeightDecay
from gnflow.transform import Schedule, Transform, make_counter, make_rate


class LionRule(FirstOrder):
    """The sign of an interpolated momentum (arXiv:2302.06675)."""

    factory = "gnflow.optim.lion:lion"
    kind: Literal["lion"] = "lion"
    learning_rate: Rate = 1e-4
    """Learning rate: every entry of a weight moves by it."""
    betas: Annotated[tuple[Beta, Beta], Strict(False)] = (0.9, 0.99)
    """Weight of the momentum in the update, and decay rate of the momentum."""
    weight_decay: WeightDecay = 0.0
    """Decoupled weight decay: each update also subtracts this number x the learning rate x the weights. 0 means no
    decay. `cautious` shrinks only those weights that the update shrinks as well."""


class LionState(NamedTuple):
    """Updates made, learning rate, momentum."""

    updates: Scalar
    learning_rate: Scalar
    momentum: Params


@add_help_of(LionRule)
def lion(
    learning_rate: float = 1e-4,
    betas: tuple[float, float] = (0.9, 0.99),
    weight_decay: float | Cautious = 0.0,
    schedule: Schedule | None = None,
) -> Transform[LionState]:
    """Make Lion for any dict of tensors."""
    b1, b2 = betas

    def init(params: Params) -> LionState:
        zeros = {name: w.new_zeros(w.shape) for name, w in params.items()}
        return LionState(make_counter(params), make_rate(learning_rate, params), zeros)

    def update(gradients: Params, state: LionState, params: Params) -> tuple[Params, LionState]:
        lr = state.learning_rate if schedule is None else state.learning_rate * schedule(state.updates)
        updates, momentum = {}, {}
        for name, g in gradients.items():
            m, w = state.momentum[name], params[name]
            u = (b1 * m + (1 - b1) * g).sign()
            updates[name] = -lr * add_decay(weight_decay, u, w)
            momentum[name] = b2 * m + (1 - b2) * g
        return updates, LionState(state.updates + 1, state.learning_rate, momentum)

    return Transform(init, update)
