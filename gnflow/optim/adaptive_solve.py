"""The checks of a Gauss-Newton solve that ends when the true loss no longer falls.

Code:     github.com/gmbabreu/full-gauss-newton, the adaptive inner loop of its trainer
Differs:  the loss of a check is that of the full step, not of the best length along it
"""

from collections.abc import Callable
from typing import NamedTuple, TypeAlias

from torch import Tensor

from gnflow.objective import Metrics, Objective, Params, Scalar
from gnflow.optim.protocol import AnyState
from gnflow.optim.search import average_loss, look

Measure: TypeAlias = Callable[[Params], Scalar]
"""Inner iterate -> its true loss, with all else at the anchor."""


class Best(NamedTuple):
    """The inner iterate with the lowest true loss so far."""

    loss: Scalar
    number: int
    """Number of inner steps that lead to it."""
    point: Params
    state: AnyState
    metrics: Metrics


def make_measure(objective: Objective, anchor: Params, batch: Tensor) -> Measure:
    """Make the function that measures an inner iterate on the micro-batches of the search."""
    return lambda point: average_loss(objective, {**anchor, **point}, look(objective, batch))


def is_lower(loss: Scalar, best: Best | None) -> bool:
    """Tell whether a loss is finite and below the best one. A loss without a value, on the meta device, counts as such.

    The host waits for the device here, since it decides whether the solve goes on.
    """
    if loss.is_meta:
        return True
    return bool(loss.isfinite()) and (best is None or bool(loss < best.loss))
