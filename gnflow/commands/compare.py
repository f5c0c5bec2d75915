"""`gnflow compare RUN..`: what each arm needed to reach the target, and how sure a difference is."""

import json as json_text
from collections.abc import Iterator, Sequence
from math import inf
from pathlib import Path

from rich.table import Table

from gnflow.study import figures, tables
from gnflow.study.comparison import Comparison
from gnflow.study.comparison import compare as compared
from gnflow.study.find import exit_code, readable
from gnflow.study.intervals import Interval
from gnflow.study.profile import Profile
from gnflow.study.ratios import Estimate
from gnflow.study.results import Result
from gnflow.study.scores import METRIC, WORDS

COUNTS = ("passes", "tokens", "tokens/solve", "tokens/search", "flops")
TAUS = (1.0, 1.5, 2.0, 4.0)


def compare(runs: Sequence[Path], *, targets: Sequence[float], reference: str | None, json: bool) -> int:
    """Prints the comparison as tables with a verdict in words, or as JSON; 7 when it had to leave a run out."""
    found = readable(runs)
    comparison = compared(found.runs, targets, reference)
    if json:
        print(json_text.dumps(comparison.to_json(), indent=2, allow_nan=False))
    else:
        _print(comparison)
    return exit_code(found.unread)


def _print(comparison: Comparison) -> None:
    console = tables.console()
    for table in _tables(comparison):
        console.print(table)
        console.print()
    for sentence in (*comparison.verdict, *(f"warning: {warning}" for warning in comparison.warnings)):
        console.print(sentence)


def _tables(comparison: Comparison) -> Iterator[Table]:
    yield _arms(comparison)
    for target in comparison.targets:
        yield _results(target, comparison.at(target))
        if any(ratio.axes for ratio in comparison.ratios if ratio.target == target):
            yield _ratios(comparison, target)
    if "steps" in comparison.profiles:
        yield _profile(comparison.profiles["steps"])


def _arms(comparison: Comparison) -> Table:
    columns = ("arm", "optimizer", "learning rates", "seeds", "trials", "update RMS", "start", "best")
    table = tables.table(None, columns, 3)
    for arm in comparison.arms:
        rates = ", ".join(f"{path} {rate:g}".strip() for path, rate in arm.learning_rates.items())
        rms = figures.MISSING if arm.update_rms is None else f"{arm.update_rms:.2g}"
        losses = figures.loss(arm.start), figures.loss(arm.best)
        table.add_row(arm.name, arm.kind, rates, ", ".join(map(str, arm.seeds)), str(arm.trials), rms, *losses)
    return table


def _results(target: float, results: Sequence[Result]) -> Table:
    title = f"to {METRIC} <= {figures.target(target)}" + (
        " (medians over seeds)" if any(len(result.scores) > 1 for result in results) else ""
    )
    columns = ("arm", "reached", "steps", "passes", "tokens", "solve", "search", "FLOPs", "time")
    table = tables.table(title, columns, 1)
    for result in results:
        table.add_row(result.arm, f"{result.reached} of {len(result.scores)}", *_costs(result))
    return table


def _costs(result: Result) -> list[str]:
    costs = result.median
    if costs["steps"] == inf:
        return ["missed"] + [figures.MISSING] * 6
    return [f"{costs['steps']:g}", *(figures.count(costs[axis]) for axis in COUNTS), figures.duration(costs["seconds"])]


def _ratios(comparison: Comparison, target: float) -> Table:
    columns = ("arm", "needs", "ratio", "95 % interval", "bootstrap", "p", "p of sign flips", "seeds")
    title = f"times as many as {comparison.reference} needs (interval and p: Student's t on paired log ratios)"
    table = tables.table(title, columns, 2)
    for ratio in comparison.ratios:
        name = ratio.other if ratio.target == target else None
        for axis, estimate in ratio.axes.items() if name is not None else ():
            table.add_row(name, WORDS[axis], *_ratio(estimate), str(len(ratio.seeds)))
            name = ""
    return table


def _ratio(estimate: Estimate) -> list[str]:
    """Factor, interval, bootstrap, p-values."""
    sign = {"at least": ">= ", "at most": "<= "}.get(estimate.bound, "")
    factor = figures.MISSING if estimate.factor is None else f"{sign}{figures.times(estimate.factor)}"
    tests = (estimate.p_value, estimate.p_sign_flip)
    p_values = [figures.MISSING if p_value is None else f"{p_value:.2g}" for p_value in tests]
    return [factor, _ends(estimate.interval), _ends(estimate.bootstrap), *p_values]


def _ends(interval: Interval | None) -> str:
    if interval is None:
        return figures.MISSING
    return f"{figures.times(interval.low)} to {figures.times(interval.high) if interval.high < inf else 'inf'}"


def _profile(profile: Profile) -> Table:
    problems = f"{len(profile.problems)} problems (target, seed)"
    title = f"share of {problems} within a factor of the fewest {WORDS[profile.axis]}"
    table = tables.table(title, ("arm", *(f"{tau:g}x" for tau in TAUS), "score"), 1)
    for name, curve in profile.curves.items():
        shares = [next(share for at, share in reversed(curve) if at <= tau) for tau in TAUS]
        table.add_row(name, *(f"{share:.2f}" for share in shares), f"{profile.scores[name]:.2f}")
    return table
