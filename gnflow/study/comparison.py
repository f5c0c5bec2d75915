"""What runs needed to reach a target, on five axes, and whether they can be compared at all."""

from collections.abc import Sequence
from typing import NamedTuple

from gnflow.errors import SpecError
from gnflow.train.run import Run

AXES = {
    "steps": "step",
    "serial passes": "passes/serial",
    "solve tokens": "tokens/solve",
    "search tokens": "tokens/search",
    "tokens": "tokens/total",
    "FLOPs": "flops/total",
    "seconds": "time/seconds",
}


class Score(NamedTuple):
    """One run at the target: a value for each axis, or None for each when the target was missed."""

    name: str
    kind: str
    seed: int
    start: float | None
    best: float | None
    values: dict[str, float] | None


class Comparison(NamedTuple):
    """Scores in the order of the runs, and what stands in the way of believing them."""

    target: float
    scores: tuple[Score, ...]
    warnings: tuple[str, ...]


def compare(runs: Sequence[Run], target: float | None = None) -> Comparison:
    """Scores every run at `target`, by default the runs' own. Raises SpecError when they have none in common."""
    value = _common_target(runs) if target is None else target
    return Comparison(value, tuple(_score(run, value) for run in runs), tuple(_warnings(runs)))


def ratios(comparison: Comparison) -> list[str]:
    """The first run against each other one, in words."""
    first, *others = comparison.scores
    return [_ratio(first, other) for other in others if first.values and other.values]


def _ratio(first: Score, other: Score) -> str:
    mine, theirs = first.values or {}, other.values or {}
    parts = []
    for axis in ("steps", "serial passes", "tokens", "FLOPs", "seconds"):
        if mine[axis] and theirs[axis]:
            factor = theirs[axis] / mine[axis]
            parts.append(f"{factor:.2f}x fewer {axis}" if factor >= 1 else f"{1 / factor:.2f}x more {axis}")
    return f"{first.name} needs {', '.join(parts)} than {other.name}"


def _common_target(runs: Sequence[Run]) -> float:
    targets = {run.experiment.training.target.at_most for run in runs if run.experiment.training.target}
    if len(targets) != 1:
        found = ", ".join(f"{target:g}" for target in sorted(targets)) or "none"
        raise SpecError(f"the runs have no one target in common (found: {found}); give one with --target")
    return targets.pop()


def _score(run: Run, target: float) -> Score:
    rows = run.metrics.to_dicts()
    evaluated = [row for row in rows if row.get("loss/held_out") is not None]
    hit = next((row for row in evaluated if row["loss/held_out"] <= target), None)
    values = None if hit is None else {axis: float(hit.get(column) or 0) for axis, column in AXES.items()}
    losses = [row["loss/held_out"] for row in evaluated]
    experiment = run.experiment
    start, best = (losses[0], min(losses)) if losses else (None, None)
    return Score(run.directory.name, experiment.optimizer.kind, experiment.training.seed, start, best, values)


def _warnings(runs: Sequence[Run]) -> list[str]:
    facts: dict[str, list[object]] = {
        "model": [run.experiment.model for run in runs],
        "data": [run.experiment.data for run in runs],
        "starting weights": [run.experiment.training.start for run in runs],
        "rows of a micro-batch": [run.experiment.training.rows for run in runs],
        "seed": [run.experiment.training.seed for run in runs],
        "precision": [run.experiment.training.precision for run in runs],
        "compile mode": [run.experiment.compile.mode for run in runs],
        "device": [run.plan.get("device") for run in runs],
        "attention kernel (seconds only)": [run.plan.get("attention") for run in runs],
        "solve tokens of a step": [_solve_tokens(run) for run in runs],
    }
    return [f"the runs differ in {fact}" for fact, values in facts.items() if any(v != values[0] for v in values)]


def _solve_tokens(run: Run) -> object:
    step = run.plan.get("step")
    return step.get("tokens/solve") if isinstance(step, dict) else None
