"""Parse splits in the notation of the package datasets: `train`, `train[:95%]`, `train[100:]+test`."""

import re
from math import inf
from typing import NamedTuple

PART = re.compile(r"\s*(?P<name>[^\[\]+()]+?)(\[(?P<first>-?\d+%?)?:(?P<last>-?\d+%?)?\])?(\(\w+\))?\s*")
ALL = "all"


class Rows(NamedTuple):
    """Rows `first` to `last` of a split, counted in `unit`: percent, rows from its start or rows from its end."""

    name: str
    first: float | None
    last: float | None
    unit: str | None
    """None for a whole split, "mixed" if the bounds are counted in different ways."""


def is_sliced(split: str) -> bool:
    """Return whether only some rows of a split are selected."""
    return "[" in split


def overlap(one: str, other: str) -> bool:
    """Return whether two splits share rows in every data set; False for slices in different units."""
    return any(_overlap(a, b) for a in _split_parts(one) for b in _split_parts(other))


def _split_parts(split: str) -> list[Rows]:
    return [_parse_rows(found) for part in split.split("+") if (found := PART.fullmatch(part))]


def _parse_rows(found: re.Match[str]) -> Rows:
    bounds = [found["first"], found["last"]]
    units = {_find_unit(bound) for bound in bounds if bound is not None}
    first, last = (None if bound is None else _parse_bound(bound) for bound in bounds)
    return Rows(found["name"], first, last, "mixed" if len(units) > 1 else units.pop() if units else None)


def _find_unit(bound: str) -> str:
    return "percent" if bound.endswith("%") else "from the end" if bound.startswith("-") else "rows"


def _parse_bound(bound: str) -> float:
    value = float(bound.removesuffix("%"))
    return value + 100 if bound.endswith("%") and bound.startswith("-") else value


def _overlap(one: Rows, other: Rows) -> bool:
    if one.name != other.name and ALL not in (one.name, other.name):
        return False
    if ALL in (one.name, other.name) or None in (one.unit, other.unit):
        return True
    if (not one.first and not other.first) or (one.last is None and other.last is None):
        return True
    if one.unit != other.unit or one.unit == "mixed":
        return False
    first = max(-inf if rows.first is None else rows.first for rows in (one, other))
    return first < min(inf if rows.last is None else rows.last for rows in (one, other))
