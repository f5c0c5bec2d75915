"""First-order methods: a transform of the mean gradient of a few micro-batches."""

from collections.abc import Callable
from typing import TypeAlias

import torch
from torch import Tensor

from gnflow import trees
from gnflow.objective import Metrics, Objective, Params, Scalar
from gnflow.optim.protocol import AnyState, AnyTransform, Cost, Jit, eager
from gnflow.optim.stacks import Stacks

Rate: TypeAlias = Callable[[AnyState], Scalar]
Update: TypeAlias = Callable[[Params, AnyState, Params], tuple[Params, AnyState, Metrics]]


class Descent:
    """params <- params + transform(mean gradient), the transform working on stacks."""

    def __init__(
        self, transform: AnyTransform, stacks: Stacks, microbatches: int = 1, jit: Jit = eager, rate: Rate | None = None
    ) -> None:
        def update(gradients: Params, state: AnyState, params: Params) -> tuple[Params, AnyState, Metrics]:
            updates, after = transform.update(gradients, state, params)
            metrics = {"norm/gradient": trees.norm(gradients), "norm/update": trees.norm(updates)}
            if rate is not None:
                metrics["learning_rate"] = rate(state)
            return updates, after, metrics

        self.transform, self.stacks = transform, stacks
        self.update: Update = jit("update", update)
        self.cost = Cost(solve=microbatches, search=0, passes=1, calls={"gradient": microbatches, "update": 1})

    @property
    def microbatches(self) -> int:
        """Micro-batches consumed by one step."""
        return self.cost.microbatches

    def init(self, params: Params) -> AnyState:
        """The transform's own state, over stacks."""
        return self.transform.init(self.stacks.stack(params))

    def step(
        self, objective: Objective, params: Params, state: AnyState, batch: Tensor
    ) -> tuple[Params, AnyState, Metrics]:
        """One update on the mean gradient over all micro-batches of `batch`."""
        gradient, loss = mean_gradient(objective, params, batch)
        params, state, metrics = self.advance(gradient, params, state)
        return params, state, {"loss/train": loss, **metrics}

    def advance(self, gradient: Params, params: Params, state: AnyState) -> tuple[Params, AnyState, Metrics]:
        """One update on this gradient -> (params, state, norms)."""
        updates, state, metrics = self.update(self.stacks.stack(gradient), state, self.stacks.stack(params))
        return trees.add(params, self.stacks.unstack(updates)), state, metrics


def mean_gradient(objective: Objective, params: Params, batch: Tensor) -> tuple[Params, Scalar]:
    """Mean over micro-batches, holding a running sum and the current gradient."""
    total, loss = objective.gradient(params, batch[0])
    for tokens in batch[1:]:
        gradient, value = objective.gradient(params, tokens)
        torch._foreach_add_(list(total.values()), list(gradient.values()))
        loss = loss + value
    if len(batch) > 1:
        torch._foreach_div_(list(total.values()), len(batch))
    return total, loss / len(batch)
