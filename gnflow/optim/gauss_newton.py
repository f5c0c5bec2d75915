"""Gauss-Newton: any optimizer, run on the convex model of the loss around the iterate, then a search on the true loss.

    point <- inner optimizer on Q( . ; anchor), fresh micro-batches at every inner step
    goal <- mean of the last part of the inner iterates, or `point` itself
    anchor <- anchor + alpha (goal - anchor)
    the next solve starts from `point`, as it was before the search, with the inner state as it is

Source:   Abreu et al. 2025, arXiv:2510.09378
Code:     github.com/natalieabreu/full-gauss-newton llama_train_gn.py @ 0c14e7e
Differs:  a search without any improvement refuses the step, and the next solve then starts from the anchor; the
          reference always takes the best trial. The mean of the last iterates is ours
"""

from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from gnflow import trees
from gnflow.objective import Metrics, Objective, Params
from gnflow.optim.protocol import AnyState, Cost, Optimizer


class GaussNewtonState(NamedTuple):
    """Where the next inner solve starts, and the inner optimizer's own state."""

    point: Params
    inner: AnyState


class Found(NamedTuple):
    """The outcome of a search along anchor -> goal."""

    params: Params
    accepted: Tensor
    """0-D; False when no trial improved on the anchor."""
    metrics: Metrics


class Search(Protocol):
    """How far to go from `anchor` towards `goal`.

    Decided on `batch`: the micro-batches held aside, or the last one of the solve where none is.
    """

    microbatches: int
    passes: int
    calls: dict[str, int]

    def __call__(self, objective: Objective, anchor: Params, goal: Params, batch: Tensor) -> Found:
        """The accepted params."""


class GaussNewton:
    """Full Gauss-Newton. `objective.curved` is the gradient of the model; `inner` never sees the true gradient."""

    def __init__(
        self, inner: Optimizer, inner_steps: int, search: Search, warm_start: bool = True, average: float = 0.0
    ) -> None:
        self.inner, self.inner_steps, self.search, self.warm_start = inner, inner_steps, search, warm_start
        self.averaged = max(round(average * inner_steps), 1)
        solve = inner_steps * inner.cost.solve
        calls = {"curved" if name == "gradient" else name: inner_steps * n for name, n in inner.cost.calls.items()}
        for name, n in search.calls.items():
            calls[name] = calls.get(name, 0) + n
        self.cost = Cost(solve, search.microbatches, inner_steps * inner.cost.passes + search.passes, calls)

    @property
    def microbatches(self) -> int:
        """Micro-batches consumed by one step."""
        return self.cost.microbatches

    def init(self, params: Params) -> GaussNewtonState:
        """The first solve starts from the params themselves."""
        return GaussNewtonState(trees.clone(params), self.inner.init(params))

    def step(
        self, objective: Objective, params: Params, state: GaussNewtonState, batch: Tensor
    ) -> tuple[Params, GaussNewtonState, Metrics]:
        """One outer step on `cost.microbatches` micro-batches: first those of the solve, then those of the search."""
        # Storage of its own: a point that aliases the anchor would compile `curved` a second time.
        anchor = trees.clone(params)
        point, inner = state.point if self.warm_start else params, state.inner
        model, solve = model_at(objective, anchor), torch.split(batch[: self.cost.solve], self.inner.cost.microbatches)
        total: Params = {}
        first: Metrics = {}
        for i, microbatches in enumerate(solve, start=1):
            point, inner, solved = self.inner.step(model, point, inner, microbatches)
            first = first or solved
            if i > len(solve) - self.averaged:
                total = trees.add(total, point) if total else point
        goal = trees.scale(total, 1 / self.averaged)
        found = self.search(objective, anchor, goal, batch[-max(self.search.microbatches, 1) :])
        displacement = trees.norm(trees.subtract(found.params, anchor))
        metrics = {**found.metrics, "norm/update": displacement, "gn/model_loss": solved["loss/train"]}
        # Of an inner schedule, the rate that the solve began with.
        metrics |= {name: value for name, value in first.items() if name == "learning_rate"}
        metrics |= {name: value for name, value in solved.items() if name.startswith("dominance/")}
        return found.params, GaussNewtonState(trees.chosen(found.accepted, point, anchor), inner), metrics


def model_at(objective: Objective, anchor: Params) -> Objective:
    """The Gauss-Newton model as an objective: its gradient is `curved` at this anchor."""
    return objective._replace(gradient=lambda params, tokens: objective.curved(params, anchor, tokens))
