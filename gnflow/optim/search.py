"""Searches for the step length along a Gauss-Newton direction.

    geometric   alpha in {1, 1/sqrt 2, 1/2, ...} with the smallest true loss on micro-batches that the solve has not
                seen, or on the last ones of the solve if not `fresh`
    full        alpha = 1

All decisions stay on the device.

Source:   Abreu et al. 2025, arXiv:2510.09378 (geometric)
Code:     github.com/natalieabreu/full-gauss-newton llama_train_gn.py @ 0c14e7e
Differs:  alpha = 0 is a trial too: a step that does not improve on the anchor is refused
"""

from collections.abc import Mapping
from math import sqrt
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from gnflow import trees
from gnflow.crew import ALONE, Crew
from gnflow.objective import LocalModel, Metrics, Objective, Params, Scalar
from gnflow.optim.means import average_value, weigh_microbatches


class Seen(NamedTuple):
    """The micro-batches that a search decides on, their `weigh_microbatches`, and who evaluates them."""

    batch: Tensor
    counts: Tensor
    crew: Crew = ALONE


def look(objective: Objective, batch: Tensor) -> Seen:
    """Return the micro-batches with their weights and the crew of the objective."""
    return Seen(batch, weigh_microbatches(objective, batch), objective.crew)


class Found(NamedTuple):
    """The result of a search along anchor -> goal."""

    params: Params
    accepted: Tensor
    """0-D; it is False if no trial improved on the anchor."""
    metrics: Metrics
    """The metrics of the search, which include `gn/gain_ratio`."""
    memory: Metrics


class Search(Protocol):
    """Decides how far to go from `anchor` towards `goal`, on the last micro-batches of a step."""

    microbatches: int
    """Number of micro-batches that are held aside for the search."""
    sees: int
    """Number of micro-batches that the search decides on: those held aside, or the last ones of the solve."""
    passes: int
    memory: Mapping[str, float]
    """Initial values of the numbers that the search keeps from step to step."""

    def __call__(
        self, objective: Objective, model: LocalModel, anchor: Params, goal: Params, batch: Tensor, memory: Metrics
    ) -> Found:
        """Return the accepted params, which share no storage with `anchor`. `model` is the model that was solved."""


class FullStep:
    """Always goes all the way to the goal."""

    microbatches, sees, passes = 0, 1, 0
    memory: Mapping[str, float] = {}

    def __call__(
        self, objective: Objective, model: LocalModel, anchor: Params, goal: Params, batch: Tensor, memory: Metrics
    ) -> Found:
        """Return the goal itself. It records losses on `batch` and does not use them."""
        seen = look(objective, batch)
        before, after = (average_loss(objective, params, seen) for params in (anchor, goal))
        found = measure_gains(objective, anchor, goal, seen, before, after)
        metrics = {"loss/train": before, "gn/alpha": torch.ones_like(before), **found}
        return Found(goal, torch.ones_like(before, dtype=torch.bool), metrics, {})


class GeometricSearch:
    """Tries `trials` step lengths (1/sqrt 2)^i and takes the best, or none. All trials count as one serial pass."""

    passes = 1
    memory: Mapping[str, float] = {}

    def __init__(self, trials: int = 5, microbatches: int = 8, fresh: bool = True) -> None:
        self.alphas = [sqrt(0.5) ** i for i in range(trials)]
        self.microbatches, self.sees = microbatches if fresh else 0, microbatches

    def __call__(
        self, objective: Objective, model: LocalModel, anchor: Params, goal: Params, batch: Tensor, memory: Metrics
    ) -> Found:
        """Take the best trial. A trial that is not finite loses; without any improvement the step is refused."""
        return choose_trial(objective, anchor, goal, batch, torch.tensor(self.alphas, dtype=torch.float64))


def choose_trial(objective: Objective, anchor: Params, goal: Params, batch: Tensor, alphas: Tensor) -> Found:
    """Take the step length, out of these and 0, that has the smallest finite loss."""
    seen = look(objective, batch)
    before = average_loss(objective, anchor, seen)
    alphas = alphas.to(before)
    trials = [average_loss(objective, trees.move_towards(anchor, goal, alpha), seen) for alpha in alphas]
    losses = torch.stack(trials).nan_to_num(nan=torch.inf)
    # An index in brackets would be read by the host, which would have to wait for the device.
    best = losses.argmin()
    after, alpha = losses.take(best), alphas.take(best)
    accepted = after < before
    candidate = trees.move_towards(anchor, goal, alpha)
    found = measure_gains(objective, anchor, candidate, seen, before, after)
    metrics = {"loss/train": before, "gn/alpha": torch.where(accepted, alpha, 0.0), **found}
    return Found(trees.select(accepted, candidate, anchor), accepted, metrics, {})


def measure_gains(
    objective: Objective, anchor: Params, candidate: Params, seen: Seen, before: Scalar, after: Scalar
) -> Metrics:
    """Compare the decrease that the model predicts for `candidate`, without damping, with that of the loss."""
    model = objective.build_model(anchor)
    predicted = before - average_value(lambda tokens: model.value(candidate, tokens), *seen)
    actual = before - after
    return {
        "gn/predicted_decrease": predicted,
        "gn/actual_decrease": actual,
        "gn/gain_ratio": torch.where(predicted == 0, 0.0, actual / predicted),
    }


def average_loss(objective: Objective, params: Params, seen: Seen) -> Scalar:
    """Return the mean loss over micro-batches."""
    return average_value(lambda tokens: objective.value(params, tokens), *seen)
