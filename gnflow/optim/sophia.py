"""A momentum divided by the diagonal of the Gauss-Newton matrix, entry by entry, and clipped (Sophia-G).

    every k updates:  H <- b2 H + (1 - b2) h,   h an estimate of the diagonal from labels that the model draws
    M <- b1 M + (1 - b1) G
    U <- clip(M / max(gamma H, eps), -1, 1)
    W <- W - lr (U + decay W)

The first estimate comes before the first update. `curvature/diagonal.py` makes the estimates.

Source:   Liu et al. 2023, arXiv:2305.14342, algorithm 3
Code:     github.com/Liuhong99/Sophia sophia.py; pytorch_optimizer.SophiaH, which has the same update
Differs:  the estimate is of the micro-batches of the update itself and comes before it; the code's gamma (`rho`) is
          multiplied by the number of targets, which h contains here
Use:      a diagonal of the curvature, to compare with; each estimate costs about one more gradient. It trained worst
          of thirteen methods, with two values tuned (docs/results/oracle_gap.md)
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal, NamedTuple

from pydantic import Strict

from gnflow.objective import Params, Scalar
from gnflow.optim.arguments import add_help_of
from gnflow.optim.decay import add_decay
from gnflow.spec.base import Count, Rate, Unit
from gnflow.spec.rules import Beta, Cautious, FirstOrder, WeightDecay
from gnflow.transform import Curvature, Schedule, Transform, make_counter, make_rate

if TYPE_CHECKING:
    from torch import Tensor


class SophiaRule(FirstOrder):
    """Sophia-G: a clipped momentum over the diagonal of the Gauss-Newton matrix (arXiv:2305.14342)."""

    factory = "gnflow.optim.sophia:sophia"
    takes_curvature = True
    kind: Literal["sophia"] = "sophia"
    learning_rate: Rate = 1e-4
    """Learning rate: the most by which an entry of a weight moves."""
    betas: Annotated[tuple[Beta, Beta], Strict(False)] = (0.965, 0.99)
    """Decay rates of the momentum and of the curvature."""
    gamma: Rate = 0.04
    """Factor on the curvature: the larger it is, the fewer entries of an update are clipped."""
    eps: Rate = 1e-12
    """Smallest value of the curvature times `gamma`, so that no division is by zero."""
    weight_decay: WeightDecay = 0.1
    """Decoupled weight decay: each update also subtracts this number x the learning rate x the weights. 0 means no
    decay. `cautious` shrinks only those weights that the update shrinks as well."""
    estimate_every: Annotated[Count, Unit("updates")] = 10
    """Number of updates between two estimates of the curvature. An estimate costs about as much as a gradient."""


class SophiaState(NamedTuple):
    """Updates made, learning rate, momentum, and the mean of the estimates of the curvature."""

    updates: Scalar
    learning_rate: Scalar
    momentum: Params
    diagonal: Params


@add_help_of(SophiaRule)
def sophia(
    learning_rate: float = 1e-4,
    betas: tuple[float, float] = (0.965, 0.99),
    gamma: float = 0.04,
    eps: float = 1e-12,
    weight_decay: float | Cautious = 0.1,
    estimate_every: int = 10,
    schedule: Schedule | None = None,
) -> Transform[SophiaState]:
    """Make Sophia-G for any dict of tensors. Until the first estimate of curvature, each entry moves by the full rate.

    A loop of your own shows it the estimates, by `Transform.curvature` or by `as_torch(...).observe`.
    """
    b1, b2 = betas

    def init(params: Params) -> SophiaState:
        momentum, diagonal = ({name: w.new_zeros(w.shape) for name, w in params.items()} for _ in range(2))
        return SophiaState(make_counter(params), make_rate(learning_rate, params), momentum, diagonal)

    def update(gradients: Params, state: SophiaState, params: Params) -> tuple[Params, SophiaState]:
        lr = state.learning_rate if schedule is None else state.learning_rate * schedule(state.updates)
        momentum = {name: b1 * m + (1 - b1) * gradients[name] for name, m in state.momentum.items()}

        def move(name: str, w: Tensor) -> Tensor:
            u = (momentum[name] / (gamma * state.diagonal[name]).clamp(min=eps)).clamp(-1, 1)
            return -lr * add_decay(weight_decay, u, w)

        updates = {name: move(name, w) for name, w in params.items()}
        return updates, state._replace(updates=state.updates + 1, momentum=momentum)

    def observe(diagonal: Params, state: SophiaState) -> SophiaState:
        return state._replace(diagonal={name: b2 * h + (1 - b2) * diagonal[name] for name, h in state.diagonal.items()})

    def find_due(state: SophiaState) -> int | None:
        # The plan asks on the meta device, where there is no count, what an estimate costs.
        updates = 0 if state.updates.is_meta else int(state.updates)
        return None if updates % estimate_every else updates

    return Transform(init, update, curvature=Curvature(observe, find_due, estimate_every))
