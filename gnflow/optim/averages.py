"""Averages of the inner iterates of a solve, towards which the search goes: a weight for each iterate.

average_last   the mean of the last part of the iterates; the last iterate alone if the part is 0
fade           each iterate weighs `decay` times the next one: an exponential moving average without its bias
"""

from collections.abc import Callable
from typing import TypeAlias

from gnflow import trees
from gnflow.objective import Params

Average: TypeAlias = Callable[[int], tuple[float, ...]]
"""number of inner steps -> weights, which are not normalised; unused iterates have weight 0."""


def average_last(part: float = 0.0) -> Average:
    """Give equal weights to the last `part` of all iterates, and to at least one of them."""

    def weigh(steps: int) -> tuple[float, ...]:
        averaged = max(round(part * steps), 1)
        return (0.0,) * (steps - averaged) + (1.0,) * averaged

    return weigh


def fade(decay: float) -> Average:
    """Give weight 1 to the last iterate, decay to the one before, then decay^2, ..."""
    return lambda steps: tuple(decay ** (steps - 1 - i) for i in range(steps))


def add_weighted(total: Params, point: Params, weight: float) -> Params:
    """Add weight * point into `total` in place. If `total` is empty, return a new one."""
    if not total:
        return trees.scale(point, weight)
    for name, value in total.items():
        value.add_(weight * point[name])
    return total
