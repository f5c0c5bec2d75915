"""How far to go along a Gauss-Newton direction.

    geometric   alpha in {1, 1/sqrt 2, 1/2, ...}: the smallest true loss on micro-batches that the solve has not seen,
                or, not `fresh`, on the last ones of the solve
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
from gnflow.objective import LocalModel, Metrics, Objective, Params, Scalar
from gnflow.optim.means import mean_value, microbatch_weights


class Seen(NamedTuple):
    """The micro-batches that a search decides on, and their `weights`."""

    batch: Tensor
    counts: Tensor


class Found(NamedTuple):
    """The outcome of a search along anchor -> goal."""

    params: Params
    accepted: Tensor
    """0-D; False when no trial improved on the anchor."""
    metrics: Metrics
    """With `gn/gain_ratio` among them."""
    memory: Metrics


class Search(Protocol):
    """How far to go from `anchor` towards `goal`, decided on the last micro-batches of a step."""

    microbatches: int
    """Micro-batches that are held aside for the search."""
    sees: int
    """Micro-batches that the search decides on: those held aside, or the last ones of the solve."""
    passes: int
    memory: Mapping[str, float]
    """The numbers that it hands from step to step, at first."""

    def __call__(
        self, objective: Objective, model: LocalModel, anchor: Params, goal: Params, batch: Tensor, memory: Metrics
    ) -> Found:
        """The accepted params, which share no storage with `anchor`. `model` is what the solve went down."""


class FullStep:
    """Always to the goal."""

    microbatches, sees, passes = 0, 1, 0
    memory: Mapping[str, float] = {}

    def __call__(
        self, objective: Objective, model: LocalModel, anchor: Params, goal: Params, batch: Tensor, memory: Metrics
    ) -> Found:
        """The goal itself; losses on `batch` are recorded, not used."""
        seen = Seen(batch, microbatch_weights(objective, batch))
        before, after = (mean_loss(objective, params, seen) for params in (anchor, goal))
        found = measure_gains(objective, anchor, goal, seen, before, after)
        metrics = {"loss/train": before, "gn/alpha": torch.ones_like(before), **found}
        return Found(goal, torch.ones_like(before, dtype=torch.bool), metrics, {})


class GeometricSearch:
    """The best of `trials` step lengths (1/sqrt 2)^i, or none at all; all trials are one serial pass."""

    passes = 1
    memory: Mapping[str, float] = {}

    def __init__(self, trials: int = 5, microbatches: int = 8, fresh: bool = True) -> None:
        self.alphas = [sqrt(0.5) ** i for i in range(trials)]
        self.microbatches, self.sees = microbatches if fresh else 0, microbatches

    def __call__(
        self, objective: Objective, model: LocalModel, anchor: Params, goal: Params, batch: Tensor, memory: Metrics
    ) -> Found:
        """Raises nothing: a non-finite trial loses, and with no finite improvement the step is refused."""
        return choose_trial(objective, anchor, goal, batch, torch.tensor(self.alphas, dtype=torch.float64))


def choose_trial(objective: Objective, anchor: Params, goal: Params, batch: Tensor, alphas: Tensor) -> Found:
    """Of these step lengths and 0, the one with the smallest finite loss."""
    seen = Seen(batch, microbatch_weights(objective, batch))
    before = mean_loss(objective, anchor, seen)
    alphas = alphas.to(before)
    trials = [mean_loss(objective, trees.towards(anchor, goal, alpha), seen) for alpha in alphas]
    losses = torch.stack(trials).nan_to_num(nan=torch.inf)
    # An index in brackets would be read by the host, which then waits for the device.
    best = losses.argmin()
    after, alpha = losses.take(best), alphas.take(best)
    accepted = after < before
    candidate = trees.towards(anchor, goal, alpha)
    found = measure_gains(objective, anchor, candidate, seen, before, after)
    metrics = {"loss/train": before, "gn/alpha": torch.where(accepted, alpha, 0.0), **found}
    return Found(trees.select(accepted, candidate, anchor), accepted, metrics, {})


def measure_gains(
    objective: Objective, anchor: Params, candidate: Params, seen: Seen, before: Scalar, after: Scalar
) -> Metrics:
    """What the model, without any damping, promised of `candidate`, and what the loss gave."""
    model = objective.around(anchor)
    predicted = before - mean_value(lambda tokens: model.value(candidate, tokens), *seen)
    actual = before - after
    return {
        "gn/predicted_decrease": predicted,
        "gn/actual_decrease": actual,
        "gn/gain_ratio": torch.where(predicted == 0, 0.0, actual / predicted),
    }


def mean_loss(objective: Objective, params: Params, seen: Seen) -> Scalar:
    """The loss, over micro-batches."""
    return mean_value(lambda tokens: objective.value(params, tokens), *seen)
