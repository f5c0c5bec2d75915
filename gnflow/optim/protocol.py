"""The two shapes that every optimizer has: a transform of gradients, or a step on an objective."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import FunctionType
from typing import Any, Generic, NamedTuple, Protocol, TypeAlias, TypeVar, cast

import torch
from torch import Tensor

from gnflow.objective import LocalModel, Metrics, Objective, Params

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

    def __call__(self, name: str, region: Region, /, every: int | None = None) -> Region:
        """The same function, compiled.

        With `every` it is not compiled: work that is due once in so many calls and decides by its data when. 0 is for
        plain Python around other regions, which is no region itself.
        """


def eager(name: str, region: Region, /, every: int | None = None) -> Region:
    """The region itself."""
    return region


def in_block(region: str, block: str) -> str:
    """The name that a region has where it serves one block among several."""
    return f"{region}.{block}"


def for_block(jit: Jit, block: str) -> Jit:
    """The same, for regions that serve this block."""

    def named(name: str, region: Region, /, every: int | None = None) -> Region:
        return jit(in_block(name, block), region, every)

    return named


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


def counter(params: Params) -> Tensor:
    """A 0-D count of updates, an input of the compiled update and never a constant of it."""
    return torch.zeros((), dtype=torch.int64, device=next(iter(params.values())).device)


def rate(value: float, params: Params) -> Tensor:
    """A 0-D learning rate, for the same reason."""
    return torch.full((), value, dtype=torch.float64, device=next(iter(params.values())).device)
