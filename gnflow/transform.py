"""A transform turns gradients into updates and keeps its state outside of itself.

This module does not import torch, so that a plug-in need not import it either.

The state of a rule is a NamedTuple of tensors and of dicts of tensors. It has these two fields:

    updates         0-D int64, the updates made so far
    learning_rate   0-D float64, the rate before the schedule

Schedulers, `as_torch` and the column `learning_rate` read these two fields.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, Protocol, TypeAlias, TypeVar

from gnflow.objective import Params, Statistic

if TYPE_CHECKING:
    from torch import Tensor

State = TypeVar("State")
# A state is a nested NamedTuple or dict of tensors. Only its own transform knows its form.
AnyState: TypeAlias = Any
Schedule: TypeAlias = Callable[["Tensor"], "Tensor"]
"""Updates made so far (0-D) -> factor on the learning rate (0-D)."""


class Fisher(NamedTuple, Generic[State]):
    """Coordinates in which a transform assumes that the Fisher matrix is diagonal.

    Parameters that `diagonal` does not name have no such coordinates.
    """

    into: Callable[[Params, State], Params]
    """(gradients, state) -> gradients in these coordinates."""
    back: Callable[[Params, State], Params]
    """The inverse of `into`."""
    diagonal: Callable[[State], Params]
    """state -> the current estimate of the diagonal; it is zero before the first update."""
    update: Callable[[Params, Params, Params, State, Params], tuple[Params, State]]
    """(direction, factors, second, state, params) -> (updates, state). The momentum accumulates `direction`, the
    coordinates accumulate the gradients `factors`, and the diagonal accumulates `second`."""


class Curvature(NamedTuple, Generic[State]):
    """The estimates of curvature that a transform takes now and then, before an update.

    Inside Gauss-Newton they are those at the anchor.
    """

    observe: Callable[[Params, State], State]
    """(estimate of the diagonal of the Gauss-Newton matrix, state) -> state."""
    due: Callable[[State], int | None]
    """state -> the number of updates made so far if an estimate is due before the next one; None if not."""
    period: int
    """Number of updates from one estimate to the next."""


Watched: TypeAlias = Callable[[str, int], "Statistic"]
"""(name, k) -> the statistic of the k-th matrix of this stack."""


class Collect(Protocol):
    """Takes statistics of linear layers on the micro-batches of a step. Each call takes passes of its own."""

    def __call__(self, names: Collection[str], watched: Watched, expanded: bool = False) -> dict[str, Params]:
        """Return, by key of the statistics, the tensors of these stacks, with a first axis for the matrices."""


class Signals(NamedTuple, Generic[State]):
    """The statistics of linear layers that a transform of matrices takes now and then, before an update.

    Inside Gauss-Newton they are those at the anchor.
    """

    observe: Callable[[Collect, State], State]
    """(collect, state) -> state."""
    due: Callable[[State], int | None]
    """state -> the number of updates made so far if statistics are due before the next one; None if not."""
    period: int
    """Number of updates from one observation to the next."""


class Transform(NamedTuple, Generic[State]):
    """Turns a gradient into an update, which includes its sign and learning rate: params_new = params + updates.

    A vector may consist of several parameters of one rule; a tensor with three axes is a stack of matrices.
    """

    init: Callable[[Params], State]
    """params -> state"""
    update: Callable[[Params, State, Params], tuple[Params, State]]
    """(gradients, state, params) -> (updates, state)"""
    refresh: Callable[[Params, State], State] | None = None
    """(gradients, state) -> state. It does amortised work; it is called before every update and returns at once when no
    work is due."""
    period: int = 1
    """Number of updates from one refresh to the next."""
    metric: Fisher[State] | None = None
    """The Fisher metric, which Fisher-orthogonal projection needs; None if the transform keeps no such statistics."""
    momentum: Callable[[Params, State], Params] | None = None
    """(gradients, state) -> the momentum of the matrices, which the next update follows."""
    rule: Callable[[str], str] | None = None
    """parameter -> the name of its part, for a transform made of several; tensors of one part may be stacked."""
    each: bool = False
    """Whether the transform must see every tensor by itself, in its own shape. Methods that use a tensor's norm must.

    Otherwise matrices of one shape come as a stack (k, m, n) and vectors as one long vector, which is faster.
    """
    curvature: Curvature[State] | None = None
    """The estimates of curvature that the transform takes; None if it takes none."""
    signals: Signals[State] | None = None
    """The statistics of linear layers that the transform takes; None if it takes none."""


AnyTransform: TypeAlias = Transform[AnyState]


def make_counter(params: Params) -> Tensor:
    """Return a 0-D count of updates. It is an input of the compiled update, so that a new value compiles nothing."""
    import torch

    return torch.zeros((), dtype=torch.int64, device=next(iter(params.values())).device)


def make_rate(value: float, params: Params) -> Tensor:
    """Return a 0-D learning rate. It is an input of the compiled update, so that a new value compiles nothing."""
    import torch

    return torch.full((), value, dtype=torch.float64, device=next(iter(params.values())).device)
