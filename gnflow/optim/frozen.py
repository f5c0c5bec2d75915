"""An optimizer for a part of the parameters. The others stay as they are, bit for bit.

The inner optimizer gets the problem as a function of its part alone. The Gauss-Newton model is linearised in that part,
with all other parameters at the anchor.
"""

from collections.abc import Iterator, Sequence

from torch import Tensor

from gnflow import trees
from gnflow.crew import Crew
from gnflow.objective import Metrics, Objective, Params
from gnflow.optim.protocol import AnyState, Cost, Optimizer, Part


class Frozen:
    """Runs `inner` on the parameters that are `moving`."""

    def __init__(self, inner: Optimizer, moving: Sequence[str]) -> None:
        self.inner, self.moving = inner, moving

    @property
    def cost(self) -> Cost:
        """The cost of one step."""
        return self.inner.cost

    @property
    def microbatches(self) -> int:
        """Number of micro-batches that one step consumes."""
        return self.inner.microbatches

    def init(self, params: Params) -> AnyState:
        """Return the state of `inner` over its part."""
        return self.inner.init(trees.pick(params, self.moving))

    def parts(self, params: Params, state: AnyState) -> Iterator[Part]:
        """Return the parts of `inner`."""
        return self.inner.parts(trees.pick(params, self.moving), state)

    def join_blocks(self, state: AnyState, crew: Crew) -> AnyState:
        """Return the state of `inner` with the blocks that other processes have solved for."""
        return self.inner.join_blocks(state, crew)

    def whole(self, params: Params, state: AnyState, crew: Crew) -> AnyState:
        """Return the state of `inner` with the parts that other processes own."""
        return self.inner.whole(trees.pick(params, self.moving), state, crew)

    def step(
        self, objective: Objective, params: Params, state: AnyState, batch: Tensor
    ) -> tuple[Params, AnyState, Metrics]:
        """Take one step of `inner` and return the other parameters unchanged."""
        moved, state, metrics = self.inner.step(
            fix_others(objective, params), trees.pick(params, self.moving), state, batch
        )  # fmt: skip
        return {**params, **moved}, state, metrics


def fix_others(objective: Objective, params: Params) -> Objective:
    """Make an objective of a part of the parameters, with the others fixed at `params`."""
    curved_value = objective.curved_value
    return objective._replace(
        value=lambda part, tokens: objective.value({**params, **part}, tokens),
        gradient=lambda part, tokens: _pick_gradient(part, objective.gradient({**params, **part}, tokens)),
        curved=lambda part, anchor, tokens: objective.curved(part, {**params, **anchor}, tokens),
        curved_value=curved_value and (lambda part, anchor, tokens: curved_value(part, {**params, **anchor}, tokens)),
        product=lambda part, anchor, tokens: objective.product(part, {**params, **anchor}, tokens),
        diagonal=lambda part, noise, tokens: trees.pick(objective.diagonal({**params, **part}, noise, tokens), part),
        signals=lambda part, noise, watch, tokens: objective.signals({**params, **part}, noise, watch, tokens),
    )


def _pick_gradient(part: Params, found: tuple[Params, Tensor]) -> tuple[Params, Tensor]:
    return trees.pick(found[0], part), found[1]
