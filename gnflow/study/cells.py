"""The parts of a matrix of arms, and the marks of what is not decided.

Marks: `?` the difference from the reference is not decided, `=` it is about none; a value without a mark is certain.
With one seed nothing is certain, and nothing is marked.
"""

from collections.abc import Sequence
from math import isfinite
from typing import NamedTuple

from gnflow.study import figures
from gnflow.study.scores import WORDS

UNDECIDED, ALIKE = "?", "="
TIMES = {"seconds": "time", "device_seconds": "device time"}


class Cell(NamedTuple):
    """One arm on one axis."""

    value: str
    beside: str
    """Ratio to the reference, or difference from it, with its mark."""
    better: bool
    """Whether the arm is certainly better than the reference."""


class Row(NamedTuple):
    """One arm."""

    arm: str
    reached: str
    """Number of seeds that reached the target, such as `2/3`; empty at equal budgets."""
    cells: tuple[Cell, ...]


class Matrix(NamedTuple):
    """The rows, the best first."""

    title: str
    columns: tuple[str, ...]
    """Name of each axis with the unit of its column."""
    rows: tuple[Row, ...]
    notes: tuple[str, ...]
    beside: str
    """Name of the column that follows each column of values, with ratios or differences."""


def mark(claim: str, several: bool) -> str:
    """Return the mark of a claim about several seeds; nothing for one seed."""
    return "" if not several else {"undecided": f" {UNDECIDED}", "alike": f" {ALIKE}"}.get(claim, "")


def format_column(axis: str, values: Sequence[float]) -> tuple[str, list[str]]:
    """Return the name of a column with its unit, and all values in that unit."""
    known = [value for value in values if isfinite(value)]
    size, unit = figures.choose_time_unit(known) if axis in TIMES else figures.choose_unit(known)
    shown = figures.format_digits if unit else "{:,g}".format  # steps and passes are whole
    texts = [shown(value / size) if isfinite(value) else "missed" for value in values]
    return f"{TIMES.get(axis) or WORDS[axis]}{f', {unit}' if unit else ''}", texts
