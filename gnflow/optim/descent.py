"""First-order methods: a transform of the mean gradient of a few micro-batches."""

from collections.abc import Callable
from copy import copy
from typing import NamedTuple, Self, TypeAlias

from torch import Tensor

from gnflow import trees
from gnflow.objective import Metrics, Objective, Params, Scalar
from gnflow.optim.means import mean_gradient
from gnflow.optim.protocol import AnyState, AnyTransform, Cost, Jit, eager
from gnflow.optim.stacks import Stacks

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
        # Its work depends on its data, and none of it would gain from being compiled.
        self.refresh = transform.refresh or (lambda gradients, state: state)
        calls: dict[str, float] = {"gradient": microbatches, "update": 1}
        if transform.refresh is not None:
            calls["refresh"] = 1 / transform.period
        self.cost = Cost(solve=microbatches, search=0, passes=1, calls=calls)

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

    def step(
        self, objective: Objective, params: Params, state: AnyState, batch: Tensor
    ) -> tuple[Params, AnyState, Metrics]:
        """One update on the gradients of all micro-batches of `batch`."""
        slope, loss, seen = self.slope(objective, params, state, batch)
        state = self.refresh(slope.factors, state)
        updates, state, metrics = self.update(slope, state, self.stacks.stack(params))
        moved = trees.add(params, self.stacks.unstack(updates))
        return moved, state, {"loss/train": loss, **metrics, **seen}

    def slope(
        self, objective: Objective, params: Params, state: AnyState, batch: Tensor
    ) -> tuple[Slope, Scalar, Metrics]:
        """The mean gradient, for everything -> (slope, mean loss, metrics)."""
        gradient, loss = mean_gradient(objective, params, batch)
        stacked = self.stacks.stack(gradient)
        return Slope(stacked, stacked, stacked), loss, {}
