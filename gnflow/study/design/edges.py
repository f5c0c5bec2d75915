"""Find ranges whose best value lies at an edge: a wider range may hold a better one."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Literal, NamedTuple

from gnflow.spec.tree import Plain, make_plain
from gnflow.study.design.draws import Axis, Range

FEWEST = 3  # number of distinct values below which every value is an edge, and says nothing


class Edge(NamedTuple):
    """The best value of a key is the least or the largest that was tried."""

    key: str
    end: Literal["least", "largest"]
    value: float
    """The best value."""
    limit: float
    """The end of the range or of the list on that side, or the farthest value tried beyond it."""


def find_edges(
    space: Mapping[str, Axis], best: Mapping[str, Plain], tried: Sequence[Mapping[str, Plain]]
) -> list[Edge]:
    """Return an edge for each key with numbers whose best value has tried values on one side only."""
    return [
        edge for key, axis in space.items() if (edge := _find_edge(key, axis, best[key], [one[key] for one in tried]))
    ]


def describe_edges(edges: Sequence[Edge]) -> Iterator[str]:
    """Write a sentence for each edge."""
    for edge in edges:
        yield f"The best `{edge.key}` is the {edge.end} that was tried: a wider range may hold a better one."


def _find_edge(key: str, axis: Axis, best: Plain, tried: Sequence[Plain]) -> Edge | None:
    numbers = [float(value) for value in tried if isinstance(value, int | float) and not isinstance(value, bool)]
    if len(numbers) < len(tried) or len(set(numbers)) < FEWEST or not isinstance(best, int | float):
        return None
    ends = _find_ends(axis)
    if best == min(numbers):
        return Edge(key, "least", best, min(ends[0], min(numbers)))
    if best == max(numbers):
        return Edge(key, "largest", best, max(ends[1], max(numbers)))
    return None


def _find_ends(axis: Axis) -> tuple[float, float]:
    if isinstance(axis, Range):
        return axis.low, axis.high
    values = [float(value) for node in axis.values if isinstance(value := make_plain(node), int | float)]
    return min(values), max(values)
