"""`gnflow compare RUN..`: what each run needed to reach the target."""

import json as json_text
from collections.abc import Sequence
from pathlib import Path

from gnflow.study import figures, tables
from gnflow.study.comparison import METRIC, Comparison, Score
from gnflow.study.comparison import compare as compared
from gnflow.study.find import find


def compare(runs: Sequence[Path], *, target: float | None, json: bool) -> int:
    """Prints the comparison as a table with a verdict in words, or as JSON."""
    comparison = compared([find(run) for run in runs], target)
    if json:
        print(json_text.dumps(comparison.to_json(), indent=2))
    else:
        _print(comparison)
    return 0


def _print(comparison: Comparison) -> None:
    console = tables.console()
    columns = (
        "run",
        "optimizer",
        "seed",
        "start",
        "best",
        "steps",
        "passes",
        "tokens",
        "solve",
        "search",
        "FLOPs",
        "time",
    )
    table = tables.table(f"to {METRIC} <= {comparison.target:g}", columns, words=2)
    for score in comparison.scores:
        table.add_row(
            score.name, score.kind, str(score.seed), figures.loss(score.start), figures.loss(score.best), *_cells(score)
        )
    console.print(table)
    for sentence in comparison.verdict:
        console.print(sentence)
    for warning in comparison.warnings:
        console.print(f"warning: {warning}")


def _cells(score: Score) -> list[str]:
    costs = score.needed
    if costs is None:
        return ["missed"] + [figures.MISSING] * 6
    counts = [figures.count(costs[axis]) for axis in ("passes", "tokens", "tokens/solve", "tokens/search", "flops")]
    return [f"{costs['steps']:.0f}", *counts, figures.duration(costs["seconds"])]
