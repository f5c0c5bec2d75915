"""The two forms of an optimizer: a transform of gradients, or a step on an objective."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import FunctionType
from typing import NamedTuple, Protocol, TypeVar, cast

from torch import Tensor

from gnflow.crew import Crew
from gnflow.objective import LocalModel, Metrics, Objective, Params
from gnflow.transform import AnyState as AnyState
from gnflow.transform import AnyTransform as AnyTransform
from gnflow.transform import Collect as Collect
from gnflow.transform import Curvature as Curvature
from gnflow.transform import Fisher as Fisher
from gnflow.transform import Signals as Signals
from gnflow.transform import Transform as Transform
from gnflow.transform import Watched as Watched
from gnflow.transform import make_counter as make_counter
from gnflow.transform import make_rate as make_rate

Region = TypeVar("Region", bound=Callable[..., object])


class Jit(Protocol):
    """Compiles a region under a name. The identity runs it eagerly."""

    def __call__(self, name: str, region: Region, /, every: int | None = None) -> Region:
        """Return the same function, compiled.

        With `every` it is not compiled: it is work that is due once in `every` calls and depends on its data. 0 marks
        plain Python around other regions, which is no region itself; -k marks such code that is due once in k calls.
        """


def eager(name: str, region: Region, /, every: int | None = None) -> Region:
    """Return the region itself."""
    return region


def name_in_block(region: str, block: str) -> str:
    """Name a region that serves one block among several."""
    return f"{region}.{block}"


def jit_for_block(jit: Jit, block: str) -> Jit:
    """Make a `Jit` that names its regions after this block."""

    def rename(name: str, region: Region, /, every: int | None = None) -> Region:
        return jit(name_in_block(name, block), region, every)

    return rename


def compile_regions(objective: Objective, jit: Jit) -> Objective:
    """Pass the regions of an objective through `jit`."""
    return objective._replace(
        value=jit("value", objective.value),
        gradient=jit("gradient", objective.gradient),
        curved=jit("curved", objective.curved),
        product=jit("product", objective.product),
        diagonal=jit("diagonal", objective.diagonal),
        signals=jit("signals", objective.signals),
        curved_value=objective.curved_value and jit("curved_value", objective.curved_value),
    )


def copy_code(function: Region) -> Region:
    """Copy a function with its code. Dynamo counts recompilations by code object, which transforms would share."""
    if not isinstance(function, FunctionType):
        return function
    code = function.__code__.replace()
    return cast(
        "Region",
        FunctionType(code, function.__globals__, function.__name__, function.__defaults__, function.__closure__),
    )


@dataclass(frozen=True)
class Cost:
    """The part of a step's cost that must be known before there is a batch. The plan counts calls of regions itself."""

    solve: int
    """Number of micro-batches that shape the update."""
    search: int
    """Number of further micro-batches, on which the length of the update is chosen."""
    passes: int
    """Number of passes that must follow one another."""

    @property
    def microbatches(self) -> int:
        """Number of micro-batches that one step consumes."""
        return self.solve + self.search


class Diagonal(NamedTuple):
    """`Fisher` at one state, for the parameters that have a diagonal: it maps trees by name to trees by stack."""

    names: tuple[str, ...]
    diagonal: Params
    """The diagonal by stack."""
    into: Callable[[Params], Params]
    back: Callable[[Params], Params]


class Optimizer(Protocol):
    """An optimizer takes steps on an objective. A step consumes its arguments."""

    @property
    def cost(self) -> Cost:
        """The cost of one step."""

    @property
    def microbatches(self) -> int:
        """Number of micro-batches that one step consumes."""

    def init(self, params: Params) -> AnyState:
        """Return the state before the first step."""

    def step(
        self, objective: Objective, params: Params, state: AnyState, batch: Tensor
    ) -> tuple[Params, AnyState, Metrics]:
        """Take a step on a batch (microbatches, rows, time + 1) and return (params, state, metrics).

        Metrics are 0-D and stay on the device. The batch may be on another device than the params, since only the
        objective looks into it.
        """

    def parts(self, params: Params, state: AnyState) -> "Iterator[Part]":
        """Return the optimizer itself, or each solver that it is made of, with its own params and state."""

    def join_blocks(self, state: AnyState, crew: Crew) -> AnyState:
        """Return the state with the blocks that other processes have solved for. All processes call it."""

    def whole(self, params: Params, state: AnyState, crew: Crew) -> AnyState:
        """Return the state with the parts that other processes own. All processes call it, after `join_blocks`."""


class Solver(Protocol):
    """An optimizer that can run inside another, since it needs no more than a `LocalModel`."""

    @property
    def cost(self) -> Cost:
        """The cost of one step."""

    def init(self, params: Params) -> AnyState:
        """Return the state before the first step."""

    def step(
        self, objective: LocalModel, params: Params, state: AnyState, batch: Tensor
    ) -> tuple[Params, AnyState, Metrics]:
        """Take a step as an `Optimizer` does."""

    def parts(self, params: Params, state: AnyState) -> "Iterator[Part]":
        """Return its parts as an `Optimizer` does."""

    def diagonal(self, state: AnyState) -> Diagonal | None:
        """Return its diagonal statistics at this state, or None if it keeps none or has not seen a gradient."""

    def whole(self, params: Params, state: AnyState, crew: Crew) -> AnyState:
        """Return the state with the parts that other processes own, as an `Optimizer` does."""


class KeptByAll:
    """The base of optimizers whose state every process keeps as a whole."""

    def join_blocks(self, state: AnyState, crew: Crew) -> AnyState:
        """Return the state."""
        return state

    def whole(self, params: Params, state: AnyState, crew: Crew) -> AnyState:
        """Return the state."""
        return state


class Part(NamedTuple):
    """A solver inside an optimizer, with its own params and state."""

    solver: Solver
    params: Params
    state: AnyState


def refuse_shape(method: str, takes: str, name: str, value: Tensor) -> ValueError:
    """Make the error for a parameter whose shape a method does not take. It names the parameter and a remedy."""
    return ValueError(
        f"{method} takes {takes}; `{name}` has shape {tuple(value.shape)}. Give it to another transform, such as "
        "adamw: `partition` puts transforms together, and `route` says by name which parameter goes to which"
    )
