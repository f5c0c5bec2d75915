"""An optimizer for a part of the parameters: the others stay as they are, bit for bit.

What the optimizer is given is the problem seen from its part alone. Its Gauss-Newton model is linearised in that part,
with all else at the anchor.
"""

from collections.abc import Iterator, Sequence

from torch import Tensor

from gnflow import trees
from gnflow.objective import Metrics, Objective, Params
from gnflow.optim.protocol import AnyState, Cost, Optimizer, Part


class Frozen:
    """`inner` on the parameters that are `moving`."""

    def __init__(self, inner: Optimizer, moving: Sequence[str]) -> None:
        self.inner, self.moving = inner, moving

    @property
    def cost(self) -> Cost:
        """What one step consumes."""
        return self.inner.cost

    @property
    def microbatches(self) -> int:
        """Micro-batches consumed by one step."""
        return self.inner.microbatches

    def init(self, params: Params) -> AnyState:
        """That of `inner`, over its part."""
        return self.inner.init(trees.pick(params, self.moving))

    def parts(self, params: Params, state: AnyState) -> Iterator[Part]:
        """Those of `inner`."""
        return self.inner.parts(trees.pick(params, self.moving), state)

    def step(
        self, objective: Objective, params: Params, state: AnyState, batch: Tensor
    ) -> tuple[Params, AnyState, Metrics]:
        """One step of `inner`; the other parameters are those that were given."""
        moved, state, metrics = self.inner.step(
            fix_others(objective, params), trees.pick(params, self.moving), state, batch
        )  # fmt: skip
        return {**params, **moved}, state, metrics


def fix_others(objective: Objective, params: Params) -> Objective:
    """The objective of a part of the parameters, the others at `params`."""
    return objective._replace(
        value=lambda part, tokens: objective.value({**params, **part}, tokens),
        gradient=lambda part, tokens: _pick_gradient(part, objective.gradient({**params, **part}, tokens)),
        curved=lambda part, anchor, tokens: objective.curved(part, {**params, **anchor}, tokens),
        product=lambda part, anchor, tokens: objective.product(part, {**params, **anchor}, tokens),
    )


def _pick_gradient(part: Params, found: tuple[Params, Tensor]) -> tuple[Params, Tensor]:
    return trees.pick(found[0], part), found[1]
