"""First-order methods: a transform of the mean gradient of a few micro-batches."""

from collections.abc import Callable, Iterator
from copy import copy
from typing import NamedTuple, Self, TypeAlias

from torch import Tensor

from gnflow import trees
from gnflow.objective import Metrics, Params, Scalar, Slopes
from gnflow.optim.means import mean_gradient
from gnflow.optim.protocol import AnyState, AnyTransform, Cost, Diagonal, Jit, Part, eager
from gnflow.optim.stacks import Stacks
from gnflow.optim.statistics import find_diagonal

Rate: TypeAlias = Callable[[AnyState], Scalar]
Probe: TypeAlias = Callable[[Params], Metrics]


class Slope(NamedTuple):
    """What a step follows, stacked: the direction, and the gradients that the statistics are fed with."""

    direction: Params
    factors: Params
    second: Params


Apply: TypeAlias = Callable[[Slope, AnyState, Params], tuple[Params, AnyState]]


class Descent:
    """params <- params + transform(mean gradient), the transform working on stacks.

    `rate` reads the learning rate off a state; `probe` measures the matrices of `Transform.momentum`;
    `apply` stands for `transform.update` where a direction is more than a mean gradient.
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
    ) -> None:
        apply = apply or (lambda slope, state, params: transform.update(slope.direction, state, params))

        def update(slope: Slope, state: AnyState, params: Params) -> tuple[Params, AnyState, Metrics]:
            metrics = {"norm/gradient": trees.norm(slope.direction)}
            if probe is not None and transform.momentum is not None:
                metrics |= probe(transform.momentum(slope.direction, state))
            if rate is not None:
                metrics["learning_rate"] = rate(state)
            updates, after = apply(slope, state, params)
            return updates, after, {**metrics, "norm/update": trees.norm(updates)}

        self.transform, self.stacks = transform, stacks
        self.update = jit("update", update)
        self.refresh: Callable[[Params, AnyState], AnyState] = lambda gradients, state: state
        if transform.refresh is not None:
            # Its work depends on its data, and none of it would gain from being compiled.
            self.refresh = jit("refresh", transform.refresh, every=transform.period)
        self.cost = Cost(solve=microbatches, search=0, passes=1)

    @property
    def microbatches(self) -> int:
        """Micro-batches consumed by one step."""
        return self.cost.microbatches

    def over(self, stacks: Stacks) -> Self:
        """The same compiled regions, for other parameters whose stacks have the same sizes."""
        twin = copy(self)
        twin.stacks = stacks
        return twin

    def init(self, params: Params) -> AnyState:
        """The transform's own state, over stacks."""
        return self.transform.init(self.stacks.stack(params))

    def parts(self, params: Params, state: AnyState) -> Iterator[Part]:
        """Itself alone."""
        yield Part(self, params, state)

    def diagonal(self, state: AnyState) -> Diagonal | None:
        """That of the transform."""
        return find_diagonal(self.transform, self.stacks, state)

    def step(
        self, objective: Slopes, params: Params, state: AnyState, batch: Tensor
    ) -> tuple[Params, AnyState, Metrics]:
        """One update on the gradients of all micro-batches of `batch`."""
        slope, loss, seen = self.slope(objective, params, state, batch)
        state = self.refresh(slope.factors, state)
        updates, state, metrics = self.update(slope, state, self.stacks.stack(params))
        moved = trees.add(params, self.stacks.unstack(updates))
        return moved, state, {"loss/train": loss, **metrics, **seen}

    def slope(self, objective: Slopes, params: Params, state: AnyState, batch: Tensor) -> tuple[Slope, Scalar, Metrics]:
        """The mean gradient, for everything -> (slope, mean loss, metrics)."""
        gradient, loss = mean_gradient(objective, params, batch)
        stacked = self.stacks.stack(gradient)
        return Slope(stacked, stacked, stacked), loss, {}
