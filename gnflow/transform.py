"""A transform: gradients in, updates out, with explicit state.

Torch is not imported for it, so that a plug-in need not.

The state of a rule is a NamedTuple of tensors and of dicts of tensors. Two of its fields are known to everybody:

    updates         0-D int64, the updates made so far
    learning_rate   0-D float64, the rate before the schedule

Schedulers, `as_torch` and the column `learning_rate` go by these two.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, TypeAlias, TypeVar

from gnflow.objective import Params

if TYPE_CHECKING:
    from torch import Tensor

State = TypeVar("State")
# A nested NamedTuple or dict of tensors, of a shape that only its own transform knows.
AnyState: TypeAlias = Any
Schedule: TypeAlias = Callable[["Tensor"], "Tensor"]
"""Updates made so far (0-D) -> factor on the learning rate (0-D)."""


class Fisher(NamedTuple, Generic[State]):
    """Coordinates in which a transform takes the Fisher matrix to be diagonal. Unnamed parameters have none."""

    into: Callable[[Params, State], Params]
    """(gradients, state) -> gradients in these coordinates"""
    back: Callable[[Params, State], Params]
    """Its inverse."""
    diagonal: Callable[[State], Params]
    """The diagonal, by its estimate so far; zero before the first update."""
    update: Callable[[Params, Params, Params, State, Params], tuple[Params, State]]
    """(direction, factors, second, state, params) -> (updates, state): the momentum is fed with `direction`, the
    coordinates with the gradients `factors`, and the diagonal with `second`."""


class Transform(NamedTuple, Generic[State]):
    """Gradient -> update. The update carries its sign and learning rate: params_new = params + updates.

    A vector may be several of one rule, joined; three axes are a stack of matrices.
    """

    init: Callable[[Params], State]
    """params -> state"""
    update: Callable[[Params, State, Params], tuple[Params, State]]
    """(gradients, state, params) -> (updates, state)"""
    refresh: Callable[[Params, State], State] | None = None
    """(gradients, state) -> state. Amortised work, called before every update; returns at once when none is due."""
    period: int = 1
    """Updates from one refresh to the next."""
    metric: Fisher[State] | None = None
    """For Fisher-orthogonal projection."""
    momentum: Callable[[Params, State], Params] | None = None
    """(gradients, state) -> the matrices whose direction the next update takes"""
    rule: Callable[[str], str] | None = None
    """parameter -> its part, for transforms that treat some apart; tensors of one part may be stacked"""
    each: bool = False
    """Whether it has to see every tensor by itself, in its own shape, as methods that scale by a tensor's norm do.

    Otherwise matrices of one shape come as a stack (k, m, n), and vectors as one long vector: that is faster.
    """


AnyTransform: TypeAlias = Transform[AnyState]


def counter(params: Params) -> Tensor:
    """A 0-D count of updates, an input of the compiled update and never a constant of it."""
    import torch

    return torch.zeros((), dtype=torch.int64, device=next(iter(params.values())).device)


def rate(value: float, params: Params) -> Tensor:
    """A 0-D learning rate, for the same reason."""
    import torch

    return torch.full((), value, dtype=torch.float64, device=next(iter(params.values())).device)
