"""The average of the weights over the steps of a run, kept beside them.

ema     (w_n + decay w_(n-1) + decay^2 w_(n-2) + ...) / (1 + decay + decay^2 + ...), over the weights after each step
tail    the mean of the weights after each of the last max(round(part N), 1) of all N steps

Both are kept as a <- a + c (w - a), c = (1 - decay) / (1 - decay^n) or 1/n for the n-th weights that are averaged: the
first of them count as they are, so the average has no bias towards the weights that the run started from.
"""

from typing import NamedTuple, assert_never

import torch

from gnflow import trees
from gnflow.objective import Params
from gnflow.spec.training import WeightAverage, WeightEma, WeightTail


class Average(NamedTuple):
    """The average so far. Until there is any, its tensors mean nothing."""

    params: Params
    steps: int
    """How many steps it averages the weights of."""


def begin_average(rule: WeightAverage | None, params: Params) -> Average | None:
    """Return an average over no steps in the shapes of `params`, or None if the spec asks for none."""
    return None if rule is None else Average(trees.clone(params), 0)


def follow(
    average: Average | None, rule: WeightAverage | None, params: Params, step: int, steps: int
) -> Average | None:
    """Return the average that includes the weights after step `step` of `steps`."""
    if average is None or rule is None:
        return average
    count = average.steps + 1
    match rule:
        case WeightEma(decay=decay):
            weight = (1 - decay) / (1 - decay**count)
        case WeightTail(part=part):
            if step <= steps - max(round(part * steps), 1):
                return average
            weight = 1 / count
        case _:
            assert_never(rule)
    return Average({name: torch.lerp(w, params[name], weight) for name, w in average.params.items()}, count)
