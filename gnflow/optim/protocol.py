"""The two shapes that every optimizer has: a transform of gradients, or a step on an objective."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import FunctionType
from typing import Protocol, TypeVar, cast

from torch import Tensor

from gnflow.objective import Metrics, Objective, Params
from gnflow.transform import AnyState as AnyState
from gnflow.transform import AnyTransform as AnyTransform
from gnflow.transform import Fisher as Fisher
from gnflow.transform import Transform as Transform
from gnflow.transform import counter as counter
from gnflow.transform import rate as rate

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
