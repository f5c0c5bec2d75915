"""Widen the space of an arm: find the edges of its trials, and record trials beyond them."""

from typing import NamedTuple

from gnflow.errors import SpecError
from gnflow.spec.problems import SpecProblems
from gnflow.spec.study import Widening
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

    Raises SpecError if its trials have not ended, or if no value beyond an edge is one that the spec takes.
    """
    edges = [edge for edge in choose(design, arm).edges if not _is_budget(design, edge)]
    if not edges:
        return Outcome(0, (f"{arm.name}: no best value lies at an edge; nothing is added",))
    count = trials or max(1, len(arm.trials) // 2)
    added = _record_trials(design, arm, edges, count)
    where = figures.join_words(
        [f"`{key}` {dimension.low:g} to {dimension.high:g}" for key, dimension in added.space.items()]
    )
    counted = f"{figures.format_plural(count, 'trial')} added, {len(arm.trials) + count} in all"
    return Outcome(count, (f"{arm.name}: {counted}: {where}",))


def _is_budget(design: Design, edge: Edge) -> bool:
    """Return whether values beyond this edge would spend more than the budget."""
    return design.study.budget is not None and edge.key == "training.steps" and edge.end == "largest"


def _record_trials(design: Design, arm: ArmDesign, edges: list[Edge], count: int) -> Widening:
    """Record the trials; ranges are continued by less if the study refuses values that far beyond."""
    path = design.folder / WIDENED
    before = path.read_bytes() if path.is_file() else None
    for halving in range(TIMES):
        part = PART / 2**halving
        widening = Widening(trials=count, space={e.key: continue_range(e, arm.space[e.key], part) for e in edges})
        record(design.folder, arm.name, widening)
        try:
            load(design.path)
        except SpecProblems as error:
            last = error
            if before is None:
                path.unlink()
            else:
                disk.write(path, before)
        else:
            return widening
    keys = figures.join_words([f"`{edge.key}`" for edge in edges])
    raise SpecError(f"{arm.name}: the spec takes no value beyond the edge of {keys}:\n{last}")
