"""Find the cause of a failed step: the micro-batch and rows behind a loss or update that is not finite, or a spike."""

import math
import statistics
from collections.abc import Mapping
from itertools import islice
from typing import NamedTuple

import torch
from torch import Tensor

from gnflow.compiler.program import Program
from gnflow.data.microbatches import Microbatches
from gnflow.objective import Params
from gnflow.spec.training import Spike
from gnflow.train.journal import Step

LOSS = "loss/train"
WORSE_THAN_GUESSING = 2.0  # nats above a uniform guess; the models here start within 1.5, warmed weights below it


class Cause(NamedTuple):
    """The cause of a failed step: a micro-batch, rows of it, and an explanation."""

    microbatch: int
    rows: list[int]
    """Rows that caused the failure; empty if no row did."""
    row_numbers: list[int]
    """The numbers of these rows in the training data."""
    words: str


def find_unusable(params: Params) -> str | None:
    """Name the first weight that is not finite; None if all are finite."""
    finite = torch.stack([value.isfinite().all() for value in params.values()])
    if bool(finite.all()):
        return None
    return f"the update makes `{list(params)[int(finite.int().argmin())]}` non-finite"


def describe_spike(
    rule: Spike | None, step: int, loss: float | None, steps: Mapping[int, Step], undone: set[int]
) -> str | None:
    """Describe a spike: a training loss of `step` too far above those before it; None if it is not one.

    loss > mean + above * deviation, over the last `window` steps that were not undone.

    Source: the rule of OLMo-core's SkipStepOptimizer. Differs: losses that were undone stay out of the mean, a step
    waits for a whole window, and gradient norms have no rule.
    """
    if rule is None or loss is None:
        return None
    kept = (steps[earlier].values.get(LOSS) for earlier in range(step - 1, 0, -1) if earlier not in undone)
    losses = list(islice((value for value in kept if value is not None), rule.window))
    if len(losses) < rule.window:
        return None
    bound = statistics.fmean(losses) + rule.above * statistics.stdev(losses)
    if loss <= bound:
        return None
    return f"{LOSS} is {loss:.4g}, a spike: the last {rule.window} losses allow {bound:.4g}"


def describe_poor_start(loss: float | None, vocabulary: int) -> str | None:
    """Warn if the starting weights are worse than a uniform guess: the first steps would then only repair them."""
    guess = math.log(vocabulary)
    if loss is None or loss <= guess + WORSE_THAN_GUESSING:
        return None
    return (
        f"the starting weights have a held-out loss of {loss:.1f}; a uniform guess among {vocabulary:,} tokens has "
        f"{guess:.1f}. The scale of the weights or the data they were trained on does not fit, and steps to a target "
        "would measure how fast a method repairs that"
    )


def find_cause(program: Program, params: Params, batches: Microbatches, first: int, count: int) -> Cause:
    """Find the cause in micro-batches first ... first + count - 1, at the weights before the step."""
    largest, where = -math.inf, first
    for number in range(first, first + count):
        loss = program.objective.value(params, batches.take(number, 1)[0].to(program.device)).item()
        if not math.isfinite(loss):
            losses = _compute_row_losses(program, params, batches.take(number, 1)[0])
            rows = [row for row, alone in enumerate(losses) if not math.isfinite(alone)] or list(range(len(losses)))
            numbers = _find_row_numbers(batches, number, rows)
            words = (
                f"micro-batch {number} has loss {loss} already at the weights before the step, "
                f"in its rows {', '.join(map(str, rows))} (rows {', '.join(map(str, numbers))} of the training text)"
            )
            return Cause(number, rows, numbers, words)
        if loss > largest:
            largest, where = loss, number
    words = (
        f"micro-batches {first} to {first + count - 1} all have a finite loss at the weights before the step "
        f"(largest: {largest:.4g}, micro-batch {where}), so it is the update that went too far; "
        "a lower learning rate or `clip` may help"
    )
    return Cause(where, [], [], words)


def find_highest(program: Program, params: Params, batches: Microbatches, first: int, count: int) -> Cause:
    """Find where a spike comes from: the micro-batch with the largest loss, and its row with the largest loss."""
    found = {
        number: program.objective.value(params, batches.take(number, 1)[0].to(program.device)).item()
        for number in range(first, first + count)
    }
    where = max(found, key=found.__getitem__)
    losses = _compute_row_losses(program, params, batches.take(where, 1)[0])
    row = max(range(len(losses)), key=losses.__getitem__)
    (number,) = _find_row_numbers(batches, where, [row])
    words = (
        f"of its micro-batches {where} has the largest loss at the weights before the step, {found[where]:.4g}, "
        f"and there row {row} (row {number} of the training text), {losses[row]:.4g}"
    )
    return Cause(where, [row], [number], words)


def _find_row_numbers(batches: Microbatches, microbatch: int, rows: list[int]) -> list[int]:
    numbers = batches.find_rows(microbatch, 1)[0]
    return [int(numbers[row]) for row in rows]


def _compute_row_losses(program: Program, params: Params, tokens: Tensor) -> list[float]:
    """Compute the loss of each row. Each fills a micro-batch of the usual shape, so nothing is compiled again."""
    tokens = tokens.to(program.device)
    return [program.objective.value(params, row.expand_as(tokens).contiguous()).item() for row in tokens]
