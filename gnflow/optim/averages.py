"""Which of the inner iterates of a solve the search goes towards: a weight for each, of a mean over them.

last    the mean of the last part of them; of no part, the last one alone
faded   weights in the ratio decay from each to the one before: an exponential moving average without its bias
"""

from collections.abc import Callable
from typing import TypeAlias

from gnflow import trees
from gnflow.objective import Params

Average: TypeAlias = Callable[[int], tuple[float, ...]]
"""Inner steps -> weights, not normalised; 0 for iterates that are not looked at."""


def average_last(part: float = 0.0) -> Average:
    """Equal weights for the last `part` of all iterates, and at least for one."""

    def weights(steps: int) -> tuple[float, ...]:
        averaged = max(round(part * steps), 1)
        return (0.0,) * (steps - averaged) + (1.0,) * averaged

    return weights


def fade(decay: float) -> Average:
    """1 for the last iterate, decay for the one before, decay^2, ..."""
    return lambda steps: tuple(decay ** (steps - 1 - i) for i in range(steps))


def add_weighted(total: Params, point: Params, weight: float) -> Params:
    """total + weight point, written into `total`; the first total, of nothing, is new."""
    if not total:
        return trees.scale(point, weight)
    for name, value in total.items():
        value.add_(weight * point[name])
    return total
