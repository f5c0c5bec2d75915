"""First-order methods: they apply a transform to the mean gradient of a few micro-batches."""

from collections.abc import Callable, Iterator
from copy import copy
from typing import NamedTuple, Self, TypeAlias

from torch import Tensor

from gnflow import trees
from gnflow.objective import Metrics, Params, Scalar, Slopes
from gnflow.optim.means import average_gradient
from gnflow.optim.observation import Observe, observe_with, watch_with
from gnflow.optim.protocol import AnyState, AnyTransform, Cost, Diagonal, Jit, KeptByAll, Part, eager
from gnflow.optim.stacks import Stacks
from gnflow.optim.statistics import find_diagonal

Rate: TypeAlias = Callable[[AnyState], Scalar]
Probe: TypeAlias = Callable[[Params], Metrics]


class Slope(NamedTuple):
    """The stacked inputs of an update: the direction to follow, and the gradients that the statistics accumulate."""

    direction: Params
    factors: Params
    second: Params


Apply: TypeAlias = Callable[[Slope, AnyState, Params], tuple[Params, AnyState]]


class Descent(KeptByAll):
    """Takes steps params <- params + transform(mean gradient), where the transform works on stacks.

    `rate` reads the learning rate from a state; `probe` measures the matrices of `Transform.momentum`; `apply` replaces
    `transform.update` for methods whose direction is not the mean gradient; `seed` chooses the labels that are drawn
    for a transform which takes estimates of curvature.
    """

    def __init__(
        self,
        transform: AnyTransform,
        stacks: Stacks,
        microbatches: int = 1,
        jit: Jit = eager,
        rate: Rate | None = None,
        probe: Probe | None = None,
        apply: Apply | None = None,
        seed: int = 0,
    ) -> None:
        apply = apply or (lambda slope, state, params: transform.update(slope.direction, state, params))

        def update(slope: Slope, state: AnyState, params: Params) -> tuple[Params, AnyState, Metrics]:
            metrics = {"norm/gradient": trees.norm(slope.direction)}
            if probe is not None and transform.momentum is not None:
                metrics |= probe(transform.momentum(slope.direction, state))
            if rate is not None:
                metrics["learning_rate"] = rate(state)
            updates, after = apply(slope, state, params)
            return trees.add(params, updates), after, {**metrics, "norm/update": trees.norm(updates)}

        self.transform, self.stacks = transform, stacks
        self.update = jit("update", update)
        self.refresh: Callable[[Params, AnyState], AnyState] = lambda gradients, state: state
        if transform.refresh is not None:
            # The work of a refresh depends on its data and would not gain from being compiled.
            self.refresh = jit("refresh", transform.refresh, every=transform.period)
        self.observe: Observe = lambda objective, stacks, params, state, batch: state
        if transform.curvature is not None:
            # An estimate takes passes of its own. They need not follow those of the gradient.
            self.observe = jit("observe", observe_with(transform.curvature, seed), every=-transform.curvature.period)
        self.watch: Observe = lambda objective, stacks, params, state, batch: state
        if transform.signals is not None:
            self.watch = jit("watch", watch_with(transform.signals, seed), every=-transform.signals.period)
        self.cost = Cost(solve=microbatches, search=0, passes=1)

    @property
    def microbatches(self) -> int:
        """Number of micro-batches that one step consumes."""
        return self.cost.microbatches

    def with_stacks(self, stacks: Stacks) -> Self:
        """Return a twin for other parameters whose stacks have the same sizes. It shares the compiled regions."""
        twin = copy(self)
        twin.stacks = stacks
        return twin

    def init(self, params: Params) -> AnyState:
        """Return the state of the transform over stacks."""
        return self.transform.init(self.stacks.stack(params))

    def parts(self, params: Params, state: AnyState) -> Iterator[Part]:
        """Return this solver alone."""
        yield Part(self, params, state)

    def diagonal(self, state: AnyState) -> Diagonal | None:
        """Return the diagonal statistics of the transform."""
        return find_diagonal(self.transform, self.stacks, state)

    def step(
        self, objective: Slopes, params: Params, state: AnyState, batch: Tensor
    ) -> tuple[Params, AnyState, Metrics]:
        """Take one update on the gradients of all micro-batches of `batch`."""
        slope, loss, seen = self.find_slope(objective, params, state, batch)
        moved, state, metrics = self.advance(slope, objective, params, state, batch)
        return moved, state, {"loss/train": loss, **metrics, **seen}

    def advance(
        self, slope: Slope, objective: Slopes, params: Params, state: AnyState, batch: Tensor
    ) -> tuple[Params, AnyState, Metrics]:
        """Estimate the curvature where that is due, and take one update along `slope`."""
        state = self.observe(objective, self.stacks, params, state, batch)
        state = self.watch(objective, self.stacks, params, state, batch)
        return self.follow(slope, params, state)

    def follow(self, slope: Slope, params: Params, state: AnyState) -> tuple[Params, AnyState, Metrics]:
        """Take one update along `slope`."""
        state = self.refresh(slope.factors, state)
        joined, state, metrics = self.update(slope, state, self.stacks.rejoin(params))
        moved = self.stacks.separate(joined)  # the next step joins these views without a copy
        return trees.pick(moved, params), state, metrics

    def find_slope(
        self, objective: Slopes, params: Params, state: AnyState, batch: Tensor
    ) -> tuple[Slope, Scalar, Metrics]:
        """Return (slope, mean loss, metrics). All parts of the slope are the mean gradient."""
        gradient, loss = average_gradient(objective, params, batch)
        stacked = self.stacks.stack(gradient)
        return Slope(stacked, stacked, stacked), loss, {}
