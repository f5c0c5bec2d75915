"""Widen the space of an arm: find the edges of its trials, and record trials beyond them."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import NamedTuple

from gnflow.spec.problems import SpecProblems
from gnflow.spec.study import Dimension, Widening
from gnflow.study import figures
from gnflow.study.design.choice import choose
from gnflow.study.design.design import ArmDesign, Design
from gnflow.study.design.edges import Edge
from gnflow.study.design.load import load
from gnflow.study.design.widen import PART, WIDENED, continue_range, record
from gnflow.train import disk

TIMES = 4  # number of times that a range is continued by half as much, if values beyond it are refused


class Outcome(NamedTuple):
    """The trials that were added to one arm, in numbers and in words."""

    added: int
    """Number of trials that were added."""
    sentences: tuple[str, ...]


def widen(design: Design, arm: ArmDesign, trials: int | None = None) -> Outcome:
    """Add trials beyond the edges of an arm, half as many as it has unless given.

    Raises SpecError if its trials have not ended, or if the study takes each of the ranges but not all together.
    """
    edges = [edge for edge in choose(design, arm).edges if not _is_budget(design, edge)]
    if not edges:
        return Outcome(0, (f"{arm.name}: no best value lies at an edge; nothing is added",))
    count = trials or max(1, len(arm.trials) // 2)
    found = {edge.key: _find_range(design, arm, edge, count) for edge in edges}
    space = {key: dimension for key, dimension in found.items() if dimension}
    closed = tuple(
        f"{arm.name}: nothing is added beyond `{edge.key}: {edge.limit:g}`, since the spec takes no value there"
        for edge in edges if edge.key not in space
    )  # fmt: skip
    if not space:
        return Outcome(0, closed)
    widening = Widening(trials=count, space=space)
    with _recorded(design, arm, widening):
        pass
    record(design.folder, arm.name, widening)
    where = figures.join_words([f"`{key}` {each.low:g} to {each.high:g}" for key, each in space.items()])
    counted = f"{figures.format_plural(count, 'trial')} added, {len(arm.trials) + count} in all"
    return Outcome(count, (f"{arm.name}: {counted}: {where}", *closed))


def _is_budget(design: Design, edge: Edge) -> bool:
    """Return whether values beyond this edge would spend more than the budget."""
    return design.study.budget is not None and edge.key == "training.steps" and edge.end == "largest"


def _find_range(design: Design, arm: ArmDesign, edge: Edge, count: int) -> Dimension | None:
    """Return the range beyond an edge, shorter if the study refuses values that far beyond; None if it takes none."""
    for halving in range(TIMES):
        if dimension := continue_range(edge, arm.space[edge.key], PART / 2**halving):
            with suppress(SpecProblems), _recorded(design, arm, Widening(trials=count, space={edge.key: dimension})):
                return dimension
    return None


@contextmanager
def _recorded(design: Design, arm: ArmDesign, widening: Widening) -> Iterator[None]:
    """Record a widening for a while. Raises SpecProblems if the study does not take its trials."""
    path = design.folder / WIDENED
    before = path.read_bytes() if path.is_file() else None
    record(design.folder, arm.name, widening)
    try:
        load(design.path)
        yield
    finally:
        if before is None:
            path.unlink()
        else:
            disk.write(path, before)
