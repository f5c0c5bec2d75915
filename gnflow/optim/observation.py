"""Estimates of curvature for a transform that takes them: when one is due, and with which labels."""

from collections.abc import Callable, Collection
from typing import TypeAlias

import torch
from torch import Tensor

from gnflow.models.initial import make_generator
from gnflow.objective import LocalModel, Objective, Params, Slopes, Watch
from gnflow.optim.means import average_diagonal, average_signals
from gnflow.optim.protocol import AnyState, Collect, Curvature, Signals, Watched
from gnflow.optim.stacks import Stacks

Draw: TypeAlias = Callable[[int], Tensor]
"""Number of a micro-batch -> the noise that chooses its labels."""
Observe: TypeAlias = Callable[[Slopes, Stacks, Params, AnyState, Tensor], AnyState]
"""(objective, stacks, params, state, batch) -> state."""


def observe_with(curvature: Curvature[AnyState], seed: int) -> Observe:
    """Make the function that shows a transform its curvature on all micro-batches of a step, when that is due.

    The labels are a function of `seed`, the number of updates and the micro-batch, so a run that resumes draws the same
    ones. Inside Gauss-Newton the curvature is that at the anchor, where the model has it.
    """

    def take(model: LocalModel, stacks: Stacks, state: AnyState, batch: Tensor, draw: Draw) -> AnyState:
        return curvature.observe(stacks.stack(average_diagonal(model, batch, draw)), state)

    return _take_when_due(take, curvature.due, seed)


def watch_with(signals: Signals[AnyState], seed: int) -> Observe:
    """Make the function that lets a transform take statistics of linear layers, when they are due.

    Labels are drawn as for estimates of curvature. Every call of `collect` in one step draws the same ones.
    """

    def take(model: LocalModel, stacks: Stacks, state: AnyState, batch: Tensor, draw: Draw) -> AnyState:
        return signals.observe(collect_for(model, stacks, batch, draw), state)

    return _take_when_due(take, signals.due, seed)


def _take_when_due(take: Callable[..., AnyState], due: Callable[[AnyState], int | None], seed: int) -> Observe:
    def observe(objective: Slopes, stacks: Stacks, params: Params, state: AnyState, batch: Tensor) -> AnyState:
        updates = due(state)
        if updates is None:
            return state

        def draw(index: int) -> Tensor:
            return draw_noise(batch[index], f"labels/{seed}/{updates}/{index}")

        model = objective.build_model(params) if isinstance(objective, Objective) else objective
        return take(model, stacks, state, batch, draw)

    return observe


def collect_for(model: LocalModel, stacks: Stacks, batch: Tensor, draw: Draw) -> Collect:
    """Make the function that collects statistics by stack on a batch. `draw` makes the noise of a micro-batch."""

    def collect(names: Collection[str], watched: Watched, expanded: bool = False) -> dict[str, Params]:
        members = {name: stacks.members[name] for name in names}
        statistics = {m: watched(name, k) for name, own in members.items() for k, m in enumerate(own)}
        found = average_signals(model, batch, draw, Watch(statistics, expanded))
        keys = {key: None for each in found.values() for key in each}
        return {key: {name: torch.stack([found[m][key] for m in own]) for name, own in members.items()} for key in keys}

    return collect


def draw_noise(tokens: Tensor, key: str) -> Tensor:
    """Return a number in [0, 1) for each target of a micro-batch, (rows, time); on the device `meta` a shape alone."""
    rows, length = tokens.shape[:2]
    if tokens.is_meta:
        return torch.empty(rows, length - 1, device="meta")
    return torch.rand(rows, length - 1, generator=make_generator(key)).to(tokens.device)
