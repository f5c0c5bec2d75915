"""`gnflow study scaling`: the methods of a study over its scales, as a table, a scaling law and a chart."""

import json as json_text
from collections.abc import Sequence
from pathlib import Path

from gnflow.errors import SpecError
from gnflow.study import figures, tables
from gnflow.study.comparison import Comparison
from gnflow.study.comparison import compare as compared
from gnflow.study.design.design import Design
from gnflow.study.design.load import load
from gnflow.study.intervals import Interval
from gnflow.study.scales import WORDS, Measure, Scaled, compare_scales, describe_scales
from gnflow.study.scaling_law import Law
from gnflow.train import disk
from gnflow.train.run import Run


def scaling(folder: Path, *, against: Measure | None, at: Sequence[float], chart: Path | None, json: bool) -> int:
    """Print the law and the trends, and draw them. Raises SpecError for a size that is too far from the runs."""
    design = load(folder)
    if not design.study.scales:
        raise SpecError(
            f"{design.path} has no `scales`; expected three or more, as `scales: [{{name: w32, set: {{..}}}}, ..]`"
        )
    comparisons = {str(scale): _compare(design, scale) for scale in design.scales}
    methods = {arm.name: arm.method for arm in design.arms}
    reference = design.study.reference or _choose_reference(comparisons, methods)
    found = compare_scales(comparisons, methods, reference, against)
    if at and found.law is None:
        raise SpecError(f"no loss can be predicted: {found.why_not}")
    predicted = {size: _predict(found, size) for size in at}
    if chart is not None:
        _write_chart(found, chart)
    if json:
        print(json_text.dumps(_make_tree(found, predicted), indent=2, allow_nan=False))
        return 0
    console = tables.make_console()
    console.print(_make_table(found, comparisons, methods))
    if found.law is not None:
        console.print(_format_formula(found.law))
    for sentence in describe_scales(found):
        console.print(sentence)
    for size, losses in predicted.items():
        told = [
            f"{method} {loss:.4f}{f' ({low:.4f} to {high:.4f})' if low is not None else ''}"
            for method, (loss, low, high) in losses.items()
        ]
        console.print(f"predicted at {figures.format_count(size)} {WORDS[found.measure]}: {', '.join(told)}")
    return 0


def _format_formula(law: Law) -> str:
    return f"loss = {law.floor:.3f} + {law.scale:.3f} (factor x size / {law.centre:.3g})^-{law.exponent:.3f}"


def _compare(design: Design, scale: str | None) -> Comparison:
    runs = [Run.load(design.locate_run(arm, job)) for arm in design.select_arms(scale) for job in arm.runs]
    study = design.study
    return compared(
        runs,
        study.list_targets(scale),
        design.find_reference(scale),
        budget=study.find_budget(scale),
        sigma=study.sigma,
    )


def _choose_reference(comparisons: dict[str, Comparison], methods: dict[str, str]) -> str:
    """Choose the method that is the reference at most scales."""
    named = [methods[comparison.reference] for comparison in comparisons.values() if comparison.reference]
    if not named:
        raise SpecError("there is nothing to compare at any scale; see `gnflow compare` of the runs of one scale")
    return max(named, key=named.count)


def _predict(found: Scaled, size: float) -> dict[str, tuple[float, float | None, float | None]]:
    assert found.law is not None
    losses = {}
    for method in found.law.factors:
        interval = found.law.predict_interval(method, size)
        losses[method] = (found.law.predict_loss(method, size), *(interval or (None, None)))
    return losses


def _make_table(found: Scaled, comparisons: dict[str, Comparison], methods: dict[str, str]) -> tables.Table:
    kind = "median loss at the end" if found.nats else "median steps to the target"
    names = list(dict.fromkeys(methods.values()))
    table = tables.Table(f"{kind}, by scale", ("scale", WORDS[found.measure], *names), 1)
    for scale, comparison in comparisons.items():
        cells: dict[str, str] = {}
        for budget in comparison.budgets if found.nats else ():
            cells |= {methods[arm.arm]: figures.format_loss(arm.median) for arm in budget.arms}
        if comparison.headline is not None:
            cells |= {
                methods[one.arm]: f"{one.median['steps']:g}" for one in comparison.select_results(comparison.headline)
            }
        table.add_row(
            scale, figures.format_count(found.sizes[scale]), *(cells.get(name, figures.MISSING) for name in names)
        )
    return table


def _write_chart(found: Scaled, chart: Path) -> None:
    from gnflow.study.report import assets

    if not found.points:
        raise SpecError("there is no chart: only losses at the end of a `budget` are drawn over scales")
    assets.check_available()
    from gnflow.study.report.charts.law import draw_law

    spec = draw_law(found)
    disk.write(chart, assets.draw_png(spec) if chart.suffix == ".png" else assets.draw_svg(spec).encode())


def _make_tree(
    found: Scaled, predicted: dict[float, dict[str, tuple[float, float | None, float | None]]]
) -> dict[str, object]:
    law = found.law
    return {
        "measure": found.measure,
        "sizes": found.sizes,
        "reference": found.reference,
        "law": None if law is None else _convert_law(law),
        "why_not": found.why_not,
        "trends": [trend._asdict() | {"interval": _convert_interval(trend.interval)} for trend in found.trends],
        "predicted": {f"{size:g}": losses for size, losses in predicted.items()},
        "verdict": list(describe_scales(found)),
    }


def _convert_law(law: Law) -> dict[str, object]:
    plain = {name: value for name, value in law._asdict().items() if name != "covariance"}
    return plain | {
        "intervals": {name: _convert_interval(interval) for name, interval in law.intervals.items()},
        "exponent_interval": _convert_interval(law.exponent_interval),
    }


def _convert_interval(interval: Interval | None) -> dict[str, float | None] | None:
    return None if interval is None else interval.to_json()
