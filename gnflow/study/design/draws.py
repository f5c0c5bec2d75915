"""Draw the values of the trials of an arm: points of the unit cube that are mapped to the space."""

from collections.abc import Mapping, Sequence
from itertools import product
from math import ceil, exp, log, log2
from typing import Literal, NamedTuple

import numpy as np

from gnflow.spec.canonical import format_value
from gnflow.spec.tree import Node, Origin, Scalar, make_plain

SPARE = 8  # points drawn for each wanted one, so that repeated points can be skipped


class Range(NamedTuple):
    """Numbers between two ends."""

    low: float
    high: float
    logarithmic: bool
    whole: bool
    origin: Origin

    def choose(self, share: float) -> Scalar:
        """Return the number below which `share` (0 to 1) of the range lies, rounded to three digits."""
        if self.logarithmic:
            value = exp(log(self.low) + share * (log(self.high) - log(self.low)))
        else:
            value = self.low + share * (self.high - self.low)
        value = min(max(round(value) if self.whole else float(f"{value:.3g}"), self.low), self.high)
        value = int(value) if self.whole else value
        return Scalar(value, format_value(value), self.origin)


class Choice(NamedTuple):
    """A choice from a list of values."""

    values: Sequence[Node]

    def choose(self, share: float) -> Node:
        """Return the value before which `share` (0 to 1) of the list lies."""
        return self.values[min(int(share * len(self.values)), len(self.values) - 1)]


Axis = Range | Choice
Draw = Mapping[str, Node]


def list_grid(space: Mapping[str, Choice]) -> list[Draw]:
    """List every combination; the last key varies fastest."""
    return [dict(zip(space, values, strict=True)) for values in product(*(axis.values for axis in space.values()))]


def draw_points(space: Mapping[str, Axis], method: Literal["random", "sobol"], count: int, seed: int) -> list[Draw]:
    """Draw at most `count` distinct points, the same for the same arguments; fewer if the space has no more."""
    found: dict[str, Draw] = {}
    for point in _draw_unit_points(method, len(space), count * SPARE, seed):
        draw = {key: axis.choose(share) for (key, axis), share in zip(space.items(), point, strict=True)}
        found.setdefault(repr([make_plain(node) for node in draw.values()]), draw)
    return list(found.values())[:count]


def _draw_unit_points(method: Literal["random", "sobol"], dimensions: int, count: int, seed: int) -> list[list[float]]:
    if method == "random":
        points = np.random.Generator(np.random.Philox(key=seed)).random((count, dimensions))
        return [[float(share) for share in point] for point in points]
    from scipy.stats import qmc  # type: ignore[import-untyped]  # it ships no types

    sequence = qmc.Sobol(dimensions, scramble=True, seed=seed)
    return [[float(share) for share in point] for point in sequence.random_base2(ceil(log2(count)))]
