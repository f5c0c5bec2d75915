"""Estimates of curvature for a transform that takes them: when one is due, and with which labels."""

from collections.abc import Callable
from typing import TypeAlias

import torch
from torch import Tensor

from gnflow.models.initial import make_generator
from gnflow.objective import LocalModel, Params, Slopes
from gnflow.optim.means import average_diagonal
from gnflow.optim.protocol import AnyState, Curvature
from gnflow.optim.stacks import Stacks

Observe: TypeAlias = Callable[[Slopes, Stacks, Params, AnyState, Tensor], AnyState]
"""(objective, stacks, params, state, batch) -> state."""


def observe_with(curvature: Curvature[AnyState], seed: int) -> Observe:
    """Make the function that shows a transform its curvature on all micro-batches of a step, when that is due.

    The labels are a function of `seed`, the number of updates and the micro-batch, so a run that resumes draws the same
    ones. The function raises ValueError for a model of a loss, which draws no labels.
    """

    def observe(objective: Slopes, stacks: Stacks, params: Params, state: AnyState, batch: Tensor) -> AnyState:
        if isinstance(objective, LocalModel):
            raise ValueError("curvature is estimated on a loss; the model that Gauss-Newton minimises draws no labels")
        updates = curvature.due(state)
        if updates is None:
            return state

        def draw(index: int) -> Tensor:
            return draw_noise(batch[index], f"labels/{seed}/{updates}/{index}")

        return curvature.observe(stacks.stack(average_diagonal(objective, params, batch, draw)), state)

    return observe


def draw_noise(tokens: Tensor, key: str) -> Tensor:
    """Return a number in [0, 1) for each target of a micro-batch, (rows, time); on the device `meta` a shape alone."""
    rows, length = tokens.shape[:2]
    if tokens.is_meta:
        return torch.empty(rows, length - 1, device="meta")
    return torch.rand(rows, length - 1, generator=make_generator(key)).to(tokens.device)
