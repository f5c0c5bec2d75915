"""The two shapes that every optimizer has: a transform of gradients, or a step on an objective."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import FunctionType
from typing import Any, Generic, NamedTuple, Protocol, TypeAlias, TypeVar, cast

import torch
from torch import Tensor

from gnflow.objective import Metrics, Objective, Params

State = TypeVar("State")
# A nested NamedTuple or dict of tensors, of a shape that only its own transform knows.
AnyState: TypeAlias = Any


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


AnyTransform: TypeAlias = Transform[AnyState]

Region = TypeVar("Region", bound=Callable[..., object])


class Jit(Protocol):
    """Compiles one region under a name; the identity runs it eagerly."""

    def __call__(self, name: str, region: Region, /) -> Region:
        """The same function, compiled."""


def eager(name: str, region: Region, /) -> Region:
    """The region itself."""
    return region


def through(objective: Objective, jit: Jit) -> Objective:
    """The same, its regions passed through `jit`."""
    return objective._replace(
        value=jit("value", objective.value),
        gradient=jit("gradient", objective.gradient),
        curved=jit("curved", objective.curved),
        product=jit("product", objective.product),
    )


def copied(function: Region) -> Region:
    """The same function with code of its own: Dynamo counts recompilations by code, and transforms share theirs."""
    if not isinstance(function, FunctionType):
        return function
    code = function.__code__.replace()
    return cast(
        "Region",
        FunctionType(code, function.__globals__, function.__name__, function.__defaults__, function.__closure__),
    )


@dataclass(frozen=True)
class Cost:
    """What one step consumes: micro-batches, passes that must follow one another, and calls of each region."""

    solve: int
    search: int
    passes: int
    calls: Mapping[str, float] = field(default_factory=dict)
    """Amortised work counts as a fraction of a call."""

    @property
    def microbatches(self) -> int:
        """Micro-batches consumed by one step."""
        return self.solve + self.search


class Optimizer(Protocol):
    """One step on an objective. It consumes its arguments."""

    @property
    def cost(self) -> Cost:
        """What one step consumes."""

    @property
    def microbatches(self) -> int:
        """Micro-batches consumed by one step."""

    def init(self, params: Params) -> AnyState:
        """The state before the first step."""

    def step(
        self, objective: Objective, params: Params, state: AnyState, batch: Tensor
    ) -> tuple[Params, AnyState, Metrics]:
        """Batch is (microbatches, rows, time + 1) -> (params, state, 0-D metrics left on the device)."""


def unfit(method: str, takes: str, name: str, value: Tensor) -> ValueError:
    """For a parameter whose shape a method does not take: names it, and the way out."""
    return ValueError(
        f"{method} takes {takes}; `{name}` has shape {tuple(value.shape)}. Give it to another transform, such as "
        "adamw: `partition` puts transforms together, and `route` says by name which parameter goes to which"
    )


def counter(params: Params) -> Tensor:
    """A 0-D count of updates, an input of the compiled update and never a constant of it."""
    return torch.zeros((), dtype=torch.int64, device=next(iter(params.values())).device)


def rate(value: float, params: Params) -> Tensor:
    """A 0-D learning rate, for the same reason."""
    return torch.full((), value, dtype=torch.float64, device=next(iter(params.values())).device)
