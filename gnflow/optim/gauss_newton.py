"""Gauss-Newton: any optimizer, run on the convex model of the loss around the iterate, then a search on the true loss.

    point <- inner optimizer on Q( . ; anchor), fresh micro-batches at every inner step
    anchor <- anchor + alpha (point - anchor)
    the next solve starts from `point`, as it was before the search, with the inner state as it is

Source:   Abreu et al. 2025, arXiv:2510.09378
Code:     github.com/natalieabreu/full-gauss-newton llama_train_gn.py @ 0c14e7e
Differs:  a search without any improvement refuses the step, and the next solve then starts from the anchor; the
          reference always takes the best trial
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
    """The outcome of a search along anchor -> point."""

    params: Params
    point: Params
    metrics: Metrics


class Search(Protocol):
    """How far to go from `anchor` towards `point`.

    Decided on `batch`: the micro-batches held aside, or the last one of the solve where none is.
    """

    microbatches: int
    calls: dict[str, int]

    def __call__(self, objective: Objective, anchor: Params, point: Params, batch: Tensor) -> Found:
        """The accepted params, and where the next solve starts."""


class GaussNewton:
    """Full Gauss-Newton. `objective.curved` is the gradient of the model; `inner` never sees the true gradient."""

    def __init__(self, inner: Optimizer, inner_steps: int, search: Search, warm_start: bool = True) -> None:
        self.inner, self.inner_steps, self.search, self.warm_start = inner, inner_steps, search, warm_start
        solve = inner_steps * inner.cost.solve
        calls = {"curved" if name == "gradient" else name: inner_steps * n for name, n in inner.cost.calls.items()}
        for name, n in search.calls.items():
            calls[name] = calls.get(name, 0) + n
        self.cost = Cost(solve, search.microbatches, inner_steps * inner.cost.passes + 1, calls)

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
        point, inner, solved = descend(self.inner, model_at(objective, anchor), point, inner, batch[: self.cost.solve])
        found = self.search(objective, anchor, point, batch[-max(self.search.microbatches, 1) :])
        displacement = trees.norm(trees.subtract(found.params, anchor))
        metrics = {**found.metrics, "norm/update": displacement, "gn/model_loss": solved["loss/train"]}
        return found.params, GaussNewtonState(found.point, inner), metrics


def model_at(objective: Objective, anchor: Params) -> Objective:
    """The Gauss-Newton model as an objective: its gradient is `curved` at this anchor."""
    return objective._replace(gradient=lambda params, tokens: objective.curved(params, anchor, tokens))


def descend(
    optimizer: Optimizer, objective: Objective, params: Params, state: AnyState, batch: Tensor
) -> tuple[Params, AnyState, Metrics]:
    """Steps of `optimizer` until `batch` is used up -> (params, state, metrics of the last step)."""
    metrics: Metrics = {}
    for microbatches in torch.split(batch, optimizer.cost.microbatches):
        params, state, metrics = optimizer.step(objective, params, state, microbatches)
    return params, state, metrics
