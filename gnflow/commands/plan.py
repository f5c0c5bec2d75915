"""`gnflow plan SPEC`: show the work and the cost of a run, without allocating anything."""

import json as json_text
from collections.abc import Iterator, Mapping, Sequence
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING

from gnflow.spec.load import load
from gnflow.study import figures, tables
from gnflow.study.speed import find_pass_flops, measure_bandwidth, measure_speed
from gnflow.study.tables import Table
from gnflow.workspace import Workspace

if TYPE_CHECKING:
    from gnflow.compiler.devices import Device
    from gnflow.compiler.plan import Plan
    from gnflow.compiler.rates import Course
    from gnflow.compiler.scaling import Forecast
    from gnflow.train.origin import Origin


def plan(spec: Path, *, sets: Sequence[str], json: bool, parameters: bool = False, devices: int | None = None) -> int:
    """Print the work and the cost of a run, with every tensor if `parameters`; or print the JSON of plan.json.

    With `devices` it also shows how so many of them share the work. Raises SpecError for a bad spec, and if some
    devices would have nothing to do. Return 0.
    """
    loaded = load(spec, sets)
    # torch takes seconds to import, so a bad spec is refused before.
    from gnflow.compiler.devices import measure_memory, share_out
    from gnflow.compiler.fits import compare_with_memory
    from gnflow.compiler.plan import plan as make_plan
    from gnflow.compiler.rates import trace_rates
    from gnflow.train.origin import find_origin

    planned = make_plan(loaded.experiment)
    seconds = _predict_seconds(planned, loaded.workspace)
    found = compare_with_memory(planned)
    courses = trace_rates(planned)
    origin = find_origin(loaded.experiment, loaded.workspace)
    parts = share_out(planned, devices) if devices else []
    memory = measure_memory(planned, devices) if devices else []
    forecasts = _forecast(planned, loaded.workspace, devices) if devices else []
    if json:
        judged = None if found is None else {"verdict": found.verdict, "needed": found.needed, "room": found.room.total}
        rates = [course._asdict() for course in courses]
        more: dict[str, object] = {"predicted_seconds": seconds, "fits": judged, "rates": rates}
        if origin:
            more["weights"] = origin._asdict()
        if parts:
            more["devices"] = [{**part._asdict(), "memory": sizes} for part, sizes in zip(parts, memory, strict=True)]
            more["forecasts"] = [found._asdict() for found in forecasts]
        print(json_text.dumps({**planned.to_json(), **more}, indent=2))
        return 0
    console = tables.make_console()
    for line in _describe_costs(planned, seconds, origin):
        console.print(line)
    console.print("there is no GPU here to compare the memory with" if found is None else str(found), highlight=False)
    for line in _describe_rates(courses, console.encoding):
        console.print(line, soft_wrap=True)
    details = [
        _make_region_table(planned),
        _make_memory_table(planned),
        *([_make_parameter_table(planned)] if parameters else []),
    ]
    if parts:
        details += [_make_device_table(parts), _make_device_memory_table(memory)]
        details += [_make_speed_table(planned, forecasts, loaded.workspace)]
    for table in details:
        console.print()
        console.print(table)
    console.print()
    for line in _describe_blocks(planned):
        console.print(line)
    if not parameters:
        console.print("`--parameters` lists every tensor, its shape, block, rule, method and learning rate.")
    return 0


def _make_parameter_table(planned: "Plan") -> Table:
    table = tables.Table("parameters", ("name", "shape", "block", "rule", "method", "learning rate"), words=5)
    for row in planned.parameters:
        shape = " x ".join(str(size) for size in row.shape)
        table.add_row(row.name, shape, row.block, row.rule, row.method, f"{row.learning_rate:g}")
    return table


def _make_device_table(parts: "Sequence[Device]") -> Table:
    columns = (
        "process",
        "micro-batches of a mean",
        "its part of a solve",
        "its part of the updates",
        "MB sent an inner step",
        "MB sent a step",
        "blocks or parts",
    )
    table = tables.Table("devices", columns, words=1)
    for part in parts:
        sent = (f"{size / 1e6:,.3f}" for size in (part.sent_inner, part.sent))
        shares, owned = (f"{part.work:.0%}", f"{part.update:.0%}"), str(part.parts) if part.parts else "all"
        table.add_row(str(part.rank), str(part.microbatches), *shares, *sent, ", ".join(part.blocks) or owned)
    return table


def _make_device_memory_table(memory: Sequence[Mapping[str, int]]) -> Table:
    """Return the memory of each process by class."""
    table = tables.Table("memory of each process, MB", ("process", *memory[0], "total"), words=1)
    for rank, sizes in enumerate(memory):
        table.add_row(str(rank), *(f"{size / 1e6:,.1f}" for size in (*sizes.values(), sum(sizes.values()))))
    return table


def _forecast(planned: "Plan", workspace: Workspace, most: int) -> "list[Forecast]":
    """Predict 1, 2, 4, ... and `most` devices from what runs of this project have measured."""
    from gnflow.compiler.scaling import predict

    rate, bandwidth = _measure_rate(planned, workspace), measure_bandwidth(workspace.runs, planned.device)
    sizes = sorted({*(2**power for power in range(most.bit_length())), most})
    return [predict(planned, size, rate, bandwidth) for size in sizes]


def _make_speed_table(planned: "Plan", forecasts: "Sequence[Forecast]", workspace: Workspace) -> Table:
    """Return the predicted speed-up, and what takes the rest."""
    from gnflow.compiler.devices import explain_limit

    bandwidth = measure_bandwidth(workspace.runs, planned.device)
    messages = (
        "if messages took no time, since no run here has measured it"
        if bandwidth is None
        else f"with messages at {bandwidth / 1e6:,.0f} MB/s, as runs here had"
    )
    table = tables.Table(
        f"a step on several devices, {messages}; {explain_limit(planned)}",
        ("devices", "times as fast", "efficiency", "seconds a step", "what takes the rest"),
        words=0,
    )
    for found in forecasts:
        seconds = figures.MISSING if found.seconds is None else f"{found.seconds:.3g}"
        speed = f"{found.devices * found.efficiency:.2f}"
        table.add_row(str(found.devices), speed, f"{found.efficiency:.0%}", seconds, found.limit or figures.MISSING)
    return table


def _make_region_table(planned: "Plan") -> Table:
    table = tables.Table("regions", ("region", "calls a step", "GFLOPs a call", "GFLOPs a step"), words=1)
    for name, cost in planned.regions.items():
        calls = planned.calls.get(name, 0)
        table.add_row(name, f"{calls:,g}", f"{cost.flops / 1e9:,.2f}", f"{calls * cost.flops / 1e9:,.1f}")
    return table


def _describe_blocks(planned: "Plan") -> Iterator[str]:
    """Say what a block costs."""
    for name, block in planned.blocks.items():
        yield f"block {name}: solved for with `{block.region}`, which needs {block.share:.0%} of the FLOPs of `curved`"


def _describe_rates(courses: "Sequence[Course]", encoding: str) -> Iterator[str]:
    """Draw the learning rate of each part over the run in one line."""
    names = [course.rule if course.rule == course.method else f"{course.rule} ({course.method})" for course in courses]
    width = max(map(len, names), default=0)
    for name, course in zip(names, courses, strict=True):
        drawn = figures.draw_skyline(course.means, encoding)
        yield (
            f"rate {name:<{width}}  {drawn}  {course.schedule}: "
            f"first {course.first:.3g}, peak {course.peak:.3g}, last {course.last:.3g}"
        )


def _make_memory_table(planned: "Plan") -> Table:
    table = tables.Table("memory (activations as if run eagerly)", ("class", "MB"), words=1)
    for name, size in planned.memory.items():
        again = ", blocks recomputed" if planned.recomputed and name == "activations" else ""
        table.add_row(name + again, f"{size / 1e6:,.1f}")
    table.add_row("total", f"{sum(planned.memory.values()) / 1e6:,.1f}")
    return table


def _describe_costs(planned: "Plan", seconds: float | None, origin: "Origin | None") -> Iterator[str]:
    """Summarise the costs of the run, of a step and of evaluation."""
    tokens = planned.tokens_solve + planned.tokens_search
    count = sum(prod(row.shape) for row in planned.parameters)
    predicted = (
        "unknown until a run of about this size has finished here"
        if seconds is None
        else f"about {figures.format_duration(seconds)}, evaluation included, at the rate of runs here"
    )
    yield (
        f"{planned.experiment.name}: {count:,} parameters on {planned.device}, "
        f"{planned.attention} attention, {planned.steps:,} steps"
    )
    if origin:
        yield f"it starts from the weights in {origin}"
    yield (
        f"a step: {planned.microbatches:,} micro-batches, {planned.tokens_solve:,} tokens to solve on "
        f"+ {planned.tokens_search:,} to search on, {planned.passes:,} serial passes, "
        f"{planned.flops / 1e9:,.0f} GFLOPs"
    )
    yield (
        f"the run: {planned.steps * tokens:,} tokens, {planned.steps * planned.passes:,} serial passes, "
        f"{planned.steps * planned.flops / 1e12:,.2f} TFLOPs, time: {predicted}"
    )
    found = planned.evaluation
    if found.times:
        yield (
            f"evaluation: at most {figures.format_plural(found.times, 'time')}, {found.passes:,} passes over a "
            f"micro-batch, {found.flops / 1e12:,.2f} TFLOPs, {found.share:.0%} of all"
        )
    if found.remark:
        yield f"warning: {found.remark}"


def _measure_rate(planned: "Plan", workspace: Workspace) -> float | None:
    size = find_pass_flops(cost.flops for cost in planned.regions.values())
    return measure_speed(workspace.runs, planned.device, size)


def _predict_seconds(planned: "Plan", workspace: Workspace) -> float | None:
    rate = _measure_rate(planned, workspace)
    return (planned.steps * planned.flops + planned.evaluation.flops) / rate if rate else None
