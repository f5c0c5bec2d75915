"""Add trials beyond the edge of a range that holds the best value. They are recorded beside the study, and counted.

A range is continued by half of its width, in the logarithm if its scale is `log`; a list of numbers likewise, as the
range that it spans. The trials draw the keys at an edge from beyond it, and all other keys from their whole space.
"""

from collections.abc import Mapping, Sequence
from math import exp, log
from pathlib import Path
from typing import TypeAlias

from gnflow.spec.canonical import format_lines
from gnflow.spec.extends import read_mapping
from gnflow.spec.problems import Problem
from gnflow.spec.study import Dimension, Tuning, Widening, Widenings
from gnflow.spec.tree import Origin, Source, make_plain
from gnflow.spec.validate import validate_as
from gnflow.study.design.draws import Axis, Draw, Range, draw_points
from gnflow.study.design.edges import Edge
from gnflow.train import disk

Widened: TypeAlias = Mapping[str, Sequence[Widening]]
"""All that was added to a study, by arm."""

WIDENED = "widened.yaml"
PART = 0.5  # of the width of a range, by which it is continued
DIGITS = 3


def read_widened(folder: Path, problems: list[Problem]) -> Widened:
    """Read what was added to the study in a folder; nothing if there is no such file."""
    path = folder / WIDENED
    if not path.is_file():
        return {}
    found = validate_as(Widenings, read_mapping(path, problems), problems)
    return {} if found is None else found.arms


def draw_beyond(widening: Widening, space: Mapping[str, Axis], tuning: Tuning, number: int) -> list[Draw]:
    """Return the draws of one widening, the `number`-th of its arm: a Sobol sequence of its own."""
    place = Origin(Source(WIDENED, ""))
    wider = {
        key: _axis(widening.space[key], axis, place) if key in widening.space else axis for key, axis in space.items()
    }
    return draw_points(wider, "sobol", widening.trials, tuning.seed + number)


def continue_range(edge: Edge, axis: Axis, part: float = PART) -> Dimension | None:
    """Return the range beyond an edge, `part` times as wide as the range itself; None if it would end below 1.

    Only whole numbers with a logarithmic scale can end there.
    """
    low, high, logarithmic = _span(axis)
    sign = 1 if edge.end == "largest" else -1
    if logarithmic:
        far = edge.limit * exp(sign * part * (log(high) - log(low)))
    else:
        far = edge.limit + sign * part * (high - low)
    near = edge.limit
    if _is_whole(axis):
        far = float(sign * max(sign * round(far), sign * near + 1))
        if logarithmic and far < 1:
            if near <= 1:
                return None
            far = 1.0
        # A range has two ends, so if only one number is beyond the edge, the edge is the other one.
        near += sign if abs(far - near) > 1 else 0
    else:
        far = _round_beyond(far, near)
    return Dimension(low=min(near, far), high=max(near, far), scale="log" if logarithmic else "linear")


def record(folder: Path, widened: Widened) -> Path:
    """Write the file beside the study with all that was added to it."""
    tree = {"arms": {name: [_tree(each) for each in found] for name, found in widened.items()}}
    head = (
        "# Written by `gnflow study widen`: trials beyond the edge of a range that held the best value.",
        "# They count as trials. Delete an entry to take its trials back.",
    )
    path = folder / WIDENED
    disk.write(path, ("\n".join([*head, *format_lines(tree)]) + "\n").encode())
    return path


def _round_beyond(far: float, limit: float) -> float:
    """Round to few digits, but so that at least half of what lies beyond the limit is left."""
    rounded = (float(f"{far:.{digits}g}") for digits in range(DIGITS, 17))
    return next((each for each in rounded if abs(each - far) <= abs(far - limit) / 2), far)


def _tree(widening: Widening) -> dict[str, object]:
    return {
        "trials": widening.trials,
        "space": {key: each.model_dump(exclude_none=True) for key, each in widening.space.items()},
    }


def _span(axis: Axis) -> tuple[float, float, bool]:
    if isinstance(axis, Range):
        return axis.low, axis.high, axis.logarithmic
    values = [float(value) for node in axis.values if isinstance(value := make_plain(node), int | float)]
    return min(values), max(values), min(values) > 0


def _axis(dimension: Dimension, axis: Axis, place: Origin) -> Range:
    assert dimension.low is not None
    assert dimension.high is not None
    return Range(dimension.low, dimension.high, dimension.scale == "log", _is_whole(axis), place)


def _is_whole(axis: Axis) -> bool:
    return axis.whole if isinstance(axis, Range) else all(isinstance(make_plain(node), int) for node in axis.values)
