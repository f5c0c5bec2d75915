"""The two shapes that every optimizer has: a transform of gradients, or a step on an objective."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, NamedTuple, Protocol, TypeAlias, TypeVar

import torch
from torch import Tensor

from gnflow.objective import Metrics, Objective, Params

State = TypeVar("State")
# A nested NamedTuple or dict of tensors, of a shape that only its own transform knows.
AnyState: TypeAlias = Any


class Transform(NamedTuple, Generic[State]):
    """Gradient -> update. The update carries its sign and learning rate: params_new = params + updates."""

    init: Callable[[Params], State]
    """params -> state"""
    update: Callable[[Params, State, Params], tuple[Params, State]]
    """(gradients, state, params) -> (updates, state)"""


AnyTransform: TypeAlias = Transform[AnyState]

Region = TypeVar("Region", bound=Callable[..., object])


class Jit(Protocol):
    """Compiles one region under a name; the identity runs it eagerly."""

    def __call__(self, name: str, region: Region, /) -> Region:
        """The same function, compiled."""


def eager(name: str, region: Region, /) -> Region:
    """The region itself."""
    return region


@dataclass(frozen=True)
class Cost:
    """What one step consumes: micro-batches, passes that must follow one another, and calls of each region."""

    solve: int
    search: int
    passes: int
    calls: Mapping[str, int] = field(default_factory=dict)

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


def counter(params: Params) -> Tensor:
    """A 0-D count of updates, an input of the compiled update and never a constant of it."""
    return torch.zeros((), dtype=torch.int64, device=next(iter(params.values())).device)


def rate(value: float, params: Params) -> Tensor:
    """A 0-D learning rate, for the same reason."""
    return torch.full((), value, dtype=torch.float64, device=next(iter(params.values())).device)
