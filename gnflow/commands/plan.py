"""`gnflow plan SPEC`: what will run and what it costs, with nothing allocated."""

import json as json_text
import sys
from collections.abc import Iterator, Sequence
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

from gnflow.spec.load import load
from gnflow.study import figures
from gnflow.study.speed import flops_per_second
from gnflow.workspace import Workspace

if TYPE_CHECKING:
    from gnflow.compiler.plan import Plan
    from gnflow.compiler.rates import Course


def plan(spec: Path, *, sets: Sequence[str], json: bool) -> int:
    """Prints the plan of a spec, as tables or as the JSON of plan.json."""
    loaded = load(spec, sets)
    # torch takes seconds to import: a bad spec is refused before.
    from gnflow.compiler.plan import plan as make_plan
    from gnflow.compiler.rates import trace_rates

    planned = make_plan(loaded.experiment)
    seconds = _predicted_seconds(planned, loaded.workspace)
    courses = trace_rates(planned)
    if json:
        rates = [course._asdict() for course in courses]
        print(json_text.dumps({**planned.to_json(), "predicted_seconds": seconds, "rates": rates}, indent=2))
        return 0
    console = Console() if sys.stdout.isatty() else Console(width=120)
    console.print(_parameters(planned))
    console.print(_costs(planned))
    for line in _blocks(planned):
        console.print(line)
    console.print(_memory(planned))
    for line in _rates(courses, console.encoding):
        console.print(line, soft_wrap=True)
    console.print(_summary(planned, seconds))
    return 0


def _parameters(planned: "Plan") -> Table:
    table = Table(title="parameters", title_justify="left")
    for column in ("name", "shape", "block", "rule", "method", "learning rate"):
        table.add_column(column, justify="right" if column in ("shape", "learning rate") else "left")
    for row in planned.parameters:
        shape = " x ".join(str(size) for size in row.shape)
        table.add_row(row.name, shape, row.block, row.rule, row.method, f"{row.learning_rate:g}")
    return table


def _costs(planned: "Plan") -> Table:
    table = Table(title="regions", title_justify="left")
    for column in ("region", "calls a step", "GFLOPs a call", "GFLOPs a step"):
        table.add_column(column, justify="left" if column == "region" else "right")
    for name, cost in planned.regions.items():
        calls = planned.cost.calls.get(name, 0)
        table.add_row(name, f"{calls:,g}", f"{cost.flops / 1e9:,.2f}", f"{calls * cost.flops / 1e9:,.1f}")
    return table


def _blocks(planned: "Plan") -> Iterator[str]:
    """Why a block has a region of its own, or has not."""
    for name, block in planned.blocks.items():
        need = f"{block.share:.0%} of the FLOPs of `curved`"
        if block.region == "curved":
            yield f"block {name}: solved for with `curved`; a region of its own would need {need}"
        else:
            yield f"block {name}: solved for with `{block.region}`, which needs {need}"


def _rates(courses: "Sequence[Course]", encoding: str) -> Iterator[str]:
    """The learning rate of each part through the run, in one line."""
    names = [course.rule if course.rule == course.method else f"{course.rule} ({course.method})" for course in courses]
    width = max(map(len, names), default=0)
    for name, course in zip(names, courses, strict=True):
        drawn = figures.skyline(course.means, encoding)
        yield (
            f"rate {name:<{width}}  {drawn}  {course.schedule}: "
            f"first {course.first:.3g}, peak {course.peak:.3g}, last {course.last:.3g}"
        )


def _memory(planned: "Plan") -> Table:
    table = Table(title="memory (activations as if run eagerly)", title_justify="left")
    table.add_column("class")
    table.add_column("MB", justify="right")
    for name, size in planned.memory.items():
        again = ", blocks taken again" if planned.recomputed and name == "activations" else ""
        table.add_row(name + again, f"{size / 1e6:,.1f}")
    table.add_row("total", f"{sum(planned.memory.values()) / 1e6:,.1f}")
    return table


def _summary(planned: "Plan", seconds: float | None) -> str:
    tokens = planned.tokens_solve + planned.tokens_search
    count = sum(prod(row.shape) for row in planned.parameters)
    predicted = (
        "unknown until a run has finished here" if seconds is None else f"{seconds:,.0f} s, at the rate of runs here"
    )
    lines = [
        f"[bold]{planned.experiment.name}[/bold]: {count:,} parameters on {planned.device}, "
        f"{planned.attention} attention, {planned.steps:,} steps",
        f"a step: {planned.microbatches:,} micro-batches, {planned.tokens_solve:,} tokens to solve on "
        f"+ {planned.tokens_search:,} to search on, {planned.passes:,} serial passes, "
        f"{planned.flops / 1e9:,.0f} GFLOPs",
        f"the run: {planned.steps * tokens:,} tokens, {planned.steps * planned.passes:,} serial passes, "
        f"{planned.steps * planned.flops / 1e12:,.2f} TFLOPs, time: {predicted}",
    ]  # fmt: skip
    return "\n".join(lines)


def _predicted_seconds(planned: "Plan", workspace: Workspace) -> float | None:
    rate = flops_per_second(workspace.runs, planned.device)
    return planned.steps * planned.flops / rate if rate else None
