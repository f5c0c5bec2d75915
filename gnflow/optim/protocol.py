"""The two shapes that every optimizer has: a transform of gradients, or a step on an objective."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import FunctionType
from typing import NamedTuple, Protocol, TypeVar, cast

from torch import Tensor

from gnflow.objective import LocalModel, Metrics, Objective, Params
from gnflow.transform import AnyState as AnyState
from gnflow.transform import AnyTransform as AnyTransform
from gnflow.transform import Fisher as Fisher
from gnflow.transform import Transform as Transform
from gnflow.transform import counter as counter
from gnflow.transform import rate as rate

Region = TypeVar("Region", bound=Callable[..., object])


class Jit(Protocol):
    """Compiles one region under a name; the identity runs it eagerly."""

    def __call__(self, name: str, region: Region, /, every: int | None = None) -> Region:
        """The same function, compiled.

        With `every` it is not compiled: work that is due once in so many calls and decides by its data when. 0 is for
        plain Python around other regions, which is no region itself.
        """


def eager(name: str, region: Region, /, every: int | None = None) -> Region:
    """The region itself."""
    return region


def name_in_block(region: str, block: str) -> str:
    """The name that a region has where it serves one block among several."""
    return f"{region}.{block}"


def jit_for_block(jit: Jit, block: str) -> Jit:
    """The same, for regions that serve this block."""

    def named(name: str, region: Region, /, every: int | None = None) -> Region:
        return jit(name_in_block(name, block), region, every)

    return named


def compile_regions(objective: Objective, jit: Jit) -> Objective:
    """The same, its regions passed through `jit`."""
    return objective._replace(
        value=jit("value", objective.value),
        gradient=jit("gradient", objective.gradient),
        curved=jit("curved", objective.curved),
        product=jit("product", objective.product),
    )


def copy_code(function: Region) -> Region:
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
    """What one step consumes, as far as it has to be known before there is a batch; its regions are counted instead."""

    solve: int
    """Micro-batches that shape the update."""
    search: int
    """Further micro-batches, on which its length is chosen."""
    passes: int
    """Passes that must follow one another."""

    @property
    def microbatches(self) -> int:
        """Micro-batches consumed by one step."""
        return self.solve + self.search


class Diagonal(NamedTuple):
    """`Fisher` at one state, from parameters by name into coordinates by stack; of the parameters that have any."""

    names: tuple[str, ...]
    diagonal: Params
    """By stack."""
    into: Callable[[Params], Params]
    back: Callable[[Params], Params]


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
        """Batch is (microbatches, rows, time + 1) -> (params, state, 0-D metrics left on the device).

        The batch may be on another device than the params: only the objective looks into it.
        """

    def parts(self, params: Params, state: AnyState) -> "Iterator[Part]":
        """The optimizer itself, or each of those that it is made of, with its own params and state."""


class Solver(Protocol):
    """An optimizer that can stand inside another: it asks no more of its problem than a `LocalModel` has."""

    @property
    def cost(self) -> Cost:
        """What one step consumes."""

    def init(self, params: Params) -> AnyState:
        """The state before the first step."""

    def step(
        self, objective: LocalModel, params: Params, state: AnyState, batch: Tensor
    ) -> tuple[Params, AnyState, Metrics]:
        """As that of an `Optimizer`."""

    def parts(self, params: Params, state: AnyState) -> "Iterator[Part]":
        """As those of an `Optimizer`."""

    def diagonal(self, state: AnyState) -> Diagonal | None:
        """Its diagonal statistics at this state, where it keeps any and has seen a gradient."""


class Part(NamedTuple):
    """One solver inside an optimizer, with the params and the state that are its own."""

    solver: Solver
    params: Params
    state: AnyState


def unfit(method: str, takes: str, name: str, value: Tensor) -> ValueError:
    """For a parameter whose shape a method does not take: names it, and the way out."""
    return ValueError(
        f"{method} takes {takes}; `{name}` has shape {tuple(value.shape)}. Give it to another transform, such as "
        "adamw: `partition` puts transforms together, and `route` says by name which parameter goes to which"
    )
