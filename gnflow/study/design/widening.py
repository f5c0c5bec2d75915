"""Widen the space of an arm: find the edges of its trials, and record trials beyond them."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from gnflow.spec.problems import SpecProblems
from gnflow.spec.study import Dimension, Widening
from gnflow.study import figures
from gnflow.study.design.choice import choose
from gnflow.study.design.design import ArmDesign, Design
from gnflow.study.design.edges import Edge
from gnflow.study.design.load import load
from gnflow.study.design.widen import PART, Widened, continue_range, read_widened, record

TIMES = 4  # number of times that a range is continued by half as much, if values beyond it are refused


class Outcome(NamedTuple):
    """The trials that were added to one arm, in numbers and in words."""

    added: int
    """Number of trials that were added."""
    sentences: tuple[str, ...]


def widen(design: Design, arms: Sequence[ArmDesign], trials: int | None = None) -> list[Outcome]:
    """Add trials beyond the edges of each arm, half as many as it has unless given. All are recorded at once, or none.

    Raises SpecError if the trials of an arm have not ended, or if the study takes each range of an arm but not all.
    """
    known = read_widened(design.folder, [])
    widened, outcomes = known, []
    for arm in arms:
        widened, outcome = _widen_arm(design, arm, widened, trials)
        outcomes.append(outcome)
    if widened != known:
        record(design.folder, widened)
    return outcomes


def _widen_arm(design: Design, arm: ArmDesign, widened: Widened, trials: int | None) -> tuple[Widened, Outcome]:
    """Return all that is added to the study with this arm, and the outcome."""
    edges = [edge for edge in choose(design, arm).edges if not _is_budget(design, edge)]
    if not edges:
        return widened, Outcome(0, (f"{arm.name}: no best value lies at an edge; nothing is added",))
    count = trials or max(1, len(arm.trials) // 2)
    found = {edge.key: _find_range(design, arm, edge, widened, count) for edge in edges}
    space = {key: dimension for key, dimension in found.items() if dimension}
    closed = tuple(
        f"{arm.name}: nothing is added beyond `{edge.key}: {edge.limit:g}`, "
        "since the spec takes no value that was tried there"
        for edge in edges if edge.key not in space
    )  # fmt: skip
    if not space:
        return widened, Outcome(0, closed)
    wider = _add(widened, arm, space, count)
    total = len(load(design.path, wider).find_arm(arm.name).trials)
    where = figures.join_words([f"`{key}` {each.low:g} to {each.high:g}" for key, each in space.items()])
    added = total - len(arm.trials)
    counted = f"{figures.format_plural(added, 'trial')} added, {total} in all"
    return wider, Outcome(added, (f"{arm.name}: {counted}: {where}", *closed))


def _is_budget(design: Design, edge: Edge) -> bool:
    """Return whether values beyond this edge would spend more than the budget."""
    return design.study.budget is not None and edge.key == "training.steps" and edge.end == "largest"


def _find_range(design: Design, arm: ArmDesign, edge: Edge, widened: Widened, count: int) -> Dimension | None:
    """Return the range beyond an edge, shorter if the study refuses values that far beyond; None if it takes none."""
    for halving in range(TIMES):
        dimension = continue_range(edge, arm.space[edge.key], PART / 2**halving)
        if dimension is None:
            return None
        try:
            load(design.path, _add(widened, arm, {edge.key: dimension}, count))
        except SpecProblems:
            continue
        return dimension
    return None


def _add(widened: Widened, arm: ArmDesign, space: Mapping[str, Dimension], count: int) -> Widened:
    return {**widened, arm.name: (*widened.get(arm.name, ()), Widening(trials=count, space=dict(space)))}
