"""Does the efficiency of a direction say how well its method trains? Write ranks.json and ranks.md, from both studies.

The studies are oracle_gap (efficiencies) and oracle_gap_training (held-out losses at the end of one budget). All seeds
of both must have run. An efficiency is the one at the start of a run, or the mean over the later ones. Intervals are 95
% intervals of Student's t over seeds. A correlation is Spearman's, over the methods; its interval is that of the
percentiles over resampled methods, and its p-value that of permutations. Both take the methods as a sample of all
methods, which they are not: they say how much hangs on single ones.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import polars
from scipy import stats  # type: ignore[import-untyped]  # it ships no types

from gnflow.study.comparison import compare
from gnflow.study.design.load import load
from gnflow.study.intervals import compute_t_interval
from gnflow.study.report.charts.efficiencies import collect_efficiencies
from gnflow.train.run import Run

HERE = Path(__file__).parent
TRAINING = HERE.parent / "oracle_gap_training"
ORACLES = {"oracle": "layerwise_gn", "oracle_full": "full_gn"}
"""Exact steps and the optimizers that take steps like them. They are not part of the correlations."""
COLUMNS = {
    "same": ("same", "", None),
    "fresh": ("fresh", "", "oracle"),
    "same_joint": ("same", "joint", None),
    "fresh_joint": ("fresh", "joint", "oracle_full"),
}
"""The batch that a direction is judged on, the matrices, and the direction that its efficiency is divided by, since on
another batch exact steps have small efficiencies too, which depend on noise more than on the method."""
RESAMPLES = 10_000


def main() -> None:
    """Read the runs of both studies, and write the results."""
    losses, rows = read_losses(), read_efficiencies()
    first, start = rows["arm"][0], polars.col("step") == 0  # all arms begin at the same weights
    places = {"start": rows.filter(start & (polars.col("arm") == first))} | {
        f"along {arm}": rows.filter((polars.col("arm") == arm) & ~start)
        for arm in rows["arm"].unique(maintain_order=True)
    }
    tables = {place: dict(summarise(found)) for place, found in places.items()}
    methods = [name for name in losses if name not in ORACLES.values()]
    mean = {name: fmean(each.values()) for name, each in losses.items()}
    result = {
        "losses": {name: describe([*each.values()]) for name, each in losses.items()},
        "efficiencies": tables,
        "correlations": {
            place: {
                column: correlate([found[name][column]["mean"] for name in methods], [-mean[name] for name in methods])
                for column in COLUMNS
            }
            for place, found in tables.items()
        },
    }
    (HERE / "ranks.json").write_text(json.dumps(result, indent=2) + "\n")
    (HERE / "ranks.md").write_text("\n".join(report(result)) + "\n")


def read_losses() -> dict[str, dict[int, float]]:
    """Return the held-out loss at the end by method and seed, the lowest mean first."""
    design = load(TRAINING)
    runs = [Run.load(design.locate_run(arm, job)) for arm in design.arms for job in arm.runs]
    (budget,) = compare(runs, (), design.study.reference, budget=design.study.find_budget()).budgets
    found = {arm.arm: arm.losses for arm in budget.arms}
    return dict(sorted(found.items(), key=lambda each: fmean(each[1].values())))


def read_efficiencies() -> polars.DataFrame:
    """Return the efficiencies on the largest batch: arm, seed, step, direction, judge, part and value."""
    design = load(HERE)
    runs = [Run.load(design.locate_run(arm, job)) for arm in design.arms for job in arm.runs]
    rows = collect_efficiencies(compare(runs, (), design.study.reference, budget=design.study.find_budget()))
    return rows.filter(polars.col("batch") == rows["batch"].max())


def summarise(rows: polars.DataFrame) -> Iterator[tuple[str, dict[str, dict[str, float]]]]:
    """Yield each direction with its columns: the mean over seeds of the mean over steps, and its interval."""

    def average(direction: str, judge: str, part: str) -> polars.Series:
        chosen = rows.filter(direction=direction, judge=judge, part=part)
        return chosen.group_by("seed").agg(polars.col("value").mean()).sort("seed")["value"]

    for direction in rows["direction"].unique(maintain_order=True):
        found = {}
        for column, (judge, part, unit) in COLUMNS.items():
            values = average(direction, judge, part)
            found[column] = describe((values if unit is None else values / average(unit, judge, part)).to_list())
        yield direction, found


def describe(values: Sequence[float]) -> dict[str, float]:
    """Return the mean of the values and the ends of its interval."""
    interval = compute_t_interval(values, values)
    return {"mean": fmean(values), "low": interval.low, "high": interval.high}


def correlate(efficiencies: Sequence[float], progress: Sequence[float]) -> dict[str, float]:
    """Return Spearman's correlation, its interval and its p-value."""

    def measure(x: np.ndarray, y: np.ndarray) -> float:
        return float(np.corrcoef(stats.rankdata(x), stats.rankdata(y))[0, 1])

    x, y = np.array(efficiencies), np.array(progress)
    generator = np.random.default_rng(0)
    picks = (generator.integers(len(x), size=len(x)) for _ in range(RESAMPLES))
    drawn = [measure(x[pick], y[pick]) for pick in picks if np.ptp(x[pick]) and np.ptp(y[pick])]
    low, high = np.quantile(drawn, (0.025, 0.975))
    shuffled = [measure(x, generator.permutation(y)) for _ in range(RESAMPLES)]
    found = measure(x, y)
    extreme = sum(abs(each) >= abs(found) - 1e-12 for each in shuffled)
    return {
        "spearman": found, "low": float(low), "high": float(high), "p_value": (extreme + 1) / (RESAMPLES + 1)
    }  # fmt: skip


def report(result: Mapping[str, Any]) -> Iterator[str]:
    """Yield the lines of the tables in Markdown."""
    places = list(result["efficiencies"])
    directions = sorted(
        result["efficiencies"][places[0]],
        key=lambda name: -fmean(result["efficiencies"][place][name]["same"]["mean"] for place in places),
    )
    losses = {**result["losses"], **{oracle: result["losses"][arm] for oracle, arm in ORACLES.items()}}
    for column in COLUMNS:
        yield from ("", f"## {column}", "", "| direction | " + " | ".join(places) + " | loss at the end |")
        yield "|---" + "|---:" * (len(places) + 1) + "|"
        for name in directions:
            cells = [format_cell(result["efficiencies"][place][name][column]) for place in places]
            yield f"| {name} | {' | '.join(cells)} | {format_cell(losses[name]) if name in losses else ''} |"
    yield from ("", "## Correlation with the loss at the end, over the methods", "")
    yield "| place | " + " | ".join(COLUMNS) + " |"
    yield "|---" + "|---:" * len(COLUMNS) + "|"
    for place, found in result["correlations"].items():
        cells = [
            f"{c['spearman']:.2f} ({c['low']:.2f} to {c['high']:.2f}), p = {c['p_value']:.2g}"
            for c in (found[column] for column in COLUMNS)
        ]
        yield f"| {place} | {' | '.join(cells)} |"


def format_cell(value: Mapping[str, float]) -> str:
    """Write a mean and its interval."""
    return f"{value['mean']:.3f} ({value['low']:.3f} to {value['high']:.3f})"


if __name__ == "__main__":
    main()
