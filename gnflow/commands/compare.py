"""`gnflow compare RUN..`: what each run needed to reach the target."""

import json as json_text
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from gnflow.study.comparison import AXES, Score, ratios
from gnflow.study.comparison import compare as compared
from gnflow.study.find import find


def compare(runs: Sequence[Path], *, target: float | None, json: bool) -> int:
    """Prints the comparison as a table with ratios in words, or as JSON."""
    comparison = compared([find(run) for run in runs], target)
    if json:
        scores = [score._asdict() for score in comparison.scores]
        content = {**comparison._asdict(), "scores": scores, "ratios": ratios(comparison)}
        print(json_text.dumps(content, indent=2))
        return 0
    console = Console()
    table = Table(title=f"to loss/held_out <= {comparison.target:g}", title_justify="left")
    for column in ("run", "optimizer", "seed", "start", *AXES):
        table.add_column(column, justify="left" if column in ("run", "optimizer") else "right")
    for score in comparison.scores:
        table.add_row(score.name, score.kind, str(score.seed), _loss(score.start), *_cells(score))
    console.print(table)
    for line in ratios(comparison):
        console.print(line, soft_wrap=True)
    for warning in comparison.warnings:
        console.print(f"note: {warning}", soft_wrap=True)
    return 0


def _cells(score: Score) -> list[str]:
    if score.values is None:
        return [f"missed (best {_loss(score.best)})"] + [""] * (len(AXES) - 1)
    return [f"{value:.3g}" if axis == "FLOPs" else f"{value:,.0f}" for axis, value in score.values.items()]


def _loss(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"
