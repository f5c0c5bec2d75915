"""What runs needed to reach a target, on five axes, and what stands in the way of believing it."""

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from gnflow.errors import SpecError
from gnflow.study import figures
from gnflow.study.fairness import warnings
from gnflow.train.run import Run

METRIC = "loss/held_out"
# Axis -> column of the metrics. The five of a verdict, and the two that one of them is the sum of.
COLUMNS = {
    "steps": "step",
    "passes": "passes/serial",
    "tokens": "tokens/total",
    "tokens/solve": "tokens/solve",
    "tokens/search": "tokens/search",
    "flops": "flops/total",
    "seconds": "time/seconds",
}
WORDS = {"steps": "steps", "passes": "serial passes", "tokens": "tokens", "flops": "FLOPs", "seconds": "seconds"}
ALIKE = 1.05  # factors below this are no difference
Costs = dict[str, float]


class Score(NamedTuple):
    """One run at the target."""

    name: str
    kind: str
    seed: int
    start: float | None
    """Held-out loss of the starting weights."""
    best: float | None
    needed: Costs | None
    """What the first evaluation at or below the target had cost; None when the target was missed."""
    spent: Costs
    """What the whole run has cost so far."""


class Ratio(NamedTuple):
    """How many times more of each axis `other` needs than `leader`: more than 1 where the leader is better."""

    leader: str
    other: str
    factors: dict[str, float]
    at_least: bool
    """`other` has missed the target, so its costs so far are only a lower bound."""


class Comparison(NamedTuple):
    """Scores in the order of the runs; the leader is the run that needed the fewest steps."""

    target: float
    scores: tuple[Score, ...]
    ratios: tuple[Ratio, ...]
    verdict: tuple[str, ...]
    warnings: tuple[str, ...]

    def to_json(self) -> dict[str, object]:
        """A plain tree."""
        return {
            "metric": METRIC,
            **self._asdict(),
            "scores": [score._asdict() for score in self.scores],
            "ratios": [ratio._asdict() for ratio in self.ratios],
        }


def compare(runs: Sequence[Run], target: float | None = None) -> Comparison:
    """Scores every run at `target`, by default the runs' own. Raises SpecError when they have none in common."""
    value = _common_target(runs) if target is None else target
    scores = tuple(score(run, name, value) for run, name in zip(runs, _names(runs), strict=True))
    ratios = tuple(_ratios(scores))
    return Comparison(
        value, scores, ratios, tuple(_verdict(value, scores, ratios)), tuple(warnings(runs, _names(runs)))
    )


def score(run: Run, name: str, target: float) -> Score:
    """One run at the target."""
    rows = run.metrics.to_dicts()
    evaluated = [row for row in rows if row.get(METRIC) is not None]
    losses = [row[METRIC] for row in evaluated]
    reached = next((row for row in evaluated if row[METRIC] <= target), None)
    return Score(
        name,
        run.experiment.optimizer.kind,
        run.experiment.training.seed,
        evaluated[0][METRIC] if evaluated and evaluated[0]["step"] == 0 else None,
        min(losses, default=None),
        None if reached is None else _costs(run, reached),
        _costs(run, evaluated[-1]) if evaluated else dict.fromkeys(COLUMNS, 0.0),
    )


def numbers(tree: object) -> dict[str, float]:
    """The numbers of a JSON object, without the rest."""
    found = tree.items() if isinstance(tree, Mapping) else ()
    return {key: value for key, value in found if isinstance(value, int | float)}


def _costs(run: Run, row: Mapping[str, float | None]) -> Costs:
    """The costs in a row; a run that does not record them has still planned them."""
    planned = numbers(run.plan.get("step"))
    planned["flops/total"] = planned.get("flops", 0.0)
    steps = row["step"] or 0.0
    recorded = {axis: row.get(column) for axis, column in COLUMNS.items()}
    return {
        axis: steps * planned.get(COLUMNS[axis], 0.0) if value is None else value for axis, value in recorded.items()
    }


def _common_target(runs: Sequence[Run]) -> float:
    targets = {run.experiment.training.target.at_most for run in runs if run.experiment.training.target}
    if len(targets) != 1:
        found = figures.listed([f"{target:g}" for target in sorted(targets)]) if targets else "none"
        raise SpecError(f"the runs have no one target in common (found: {found}); give one with --target")
    return targets.pop()


def _names(runs: Sequence[Run]) -> list[str]:
    """Directory names, or paths where two directories share one."""
    names = [run.directory.resolve().name for run in runs]
    return [name if names.count(name) == 1 else str(run.directory) for run, name in zip(runs, names, strict=True)]


def _ratios(scores: Sequence[Score]) -> Iterator[Ratio]:
    there = [score for score in scores if score.needed]
    if not there:
        return
    leader = min(there, key=lambda score: _axis(score.needed, "steps"))
    if not leader.needed or not leader.needed["steps"]:
        return
    for other in scores:
        if other is not leader and other.best is not None:
            theirs = other.needed or other.spent
            factors = {
                axis: theirs[axis] / mine for axis in WORDS if (mine := _axis(leader.needed, axis)) and theirs[axis]
            }
            yield Ratio(leader.name, other.name, factors, at_least=other.needed is None)


def _axis(costs: Costs | None, axis: str) -> float:
    return costs[axis] if costs else 0.0


def _verdict(target: float, scores: Sequence[Score], ratios: Sequence[Ratio]) -> Iterator[str]:
    by_name = {score.name: score for score in scores}
    if not any(score.needed for score in scores):
        yield f"No run has reached {target:g}."
    for score in scores:
        if score.best is None:
            yield f"{score.name} was never evaluated on held-out text."
        elif score.needed and not score.needed["steps"]:
            yield f"The starting weights of {score.name} are at {target:g} already: nothing is compared."
    for ratio in ratios:
        yield _missed(target, by_name[ratio.other], ratio) if ratio.at_least else _reached(ratio)


def _reached(ratio: Ratio) -> str:
    fewer = [f"{figures.factor(f)} fewer {WORDS[axis]}" for axis, f in ratio.factors.items() if f >= ALIKE]
    more = [f"{figures.factor(1 / f)} more {WORDS[axis]}" for axis, f in ratio.factors.items() if f <= 1 / ALIKE]
    alike = [WORDS[axis] for axis, f in ratio.factors.items() if 1 / ALIKE < f < ALIKE]
    sentence = f"{ratio.leader} needs "
    sentence += f"{figures.listed(fewer)} than {ratio.other}" if fewer else f"no less of anything than {ratio.other}"
    sentence += f", but {figures.listed(more)}" if more else ""
    return sentence + (f"; about as many {figures.listed(alike)}" if alike else "") + "."


def _missed(target: float, other: Score, ratio: Ratio) -> str:
    sentence = f"{other.name} has not reached {target:g} in {other.spent['steps']:.0f} steps"
    sentence += f" (best {figures.loss(other.best)})" if other.best is not None else ""
    bounds = [f"{figures.factor(f)} fewer {WORDS[axis]}" for axis, f in ratio.factors.items() if f >= ALIKE]
    return sentence + (f": {ratio.leader} needs at least {figures.listed(bounds)}." if bounds else ".")
