"""Make tables from the runs of a comparison: a row for each step, thinned if a chart cannot show more."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import polars

from gnflow.study.arms import Arm

MOST = 300  # largest number of rows of one run in one chart


def select_recorded(arms: Sequence[Arm], columns: Mapping[str, str]) -> polars.DataFrame:
    """Return arm, run, seed, step and `columns` (new name -> name in the metrics) for steps that have all of them.

    The table is empty and has no columns if no run has such steps.
    """
    frames = [
        _select_rows(arm.name, run.experiment.training.seed, run.metrics, columns) for arm in arms for run in arm.runs
    ]
    there = [frame for frame in frames if frame.height]
    return polars.concat(there) if there else polars.DataFrame()


def _select_rows(arm: str, seed: int, metrics: polars.DataFrame, columns: Mapping[str, str]) -> polars.DataFrame:
    if not set(columns.values()) <= set(metrics.columns):
        return polars.DataFrame()
    return metrics.select(
        polars.lit(arm).alias("arm"),
        polars.lit(f"{arm}, seed {seed}").alias("run"),
        polars.lit(seed, dtype=polars.Int64).alias("seed"),
        "step",
        *(polars.col(old).cast(polars.Float64).alias(new) for new, old in columns.items()),
    ).drop_nulls()


def list_columns(arms: Sequence[Arm], prefix: str) -> list[str]:
    """List the columns of the metrics of all runs that begin with `prefix`."""
    return sorted({name for arm in arms for run in arm.runs for name in run.metrics.columns if name.startswith(prefix)})


def thin(rows: polars.DataFrame, by: str = "run") -> polars.DataFrame:
    """Keep at most about MOST rows for each value of `by`: every k-th, and the first and the last."""
    index, last = polars.int_range(polars.len()).over(by), polars.len().over(by) - 1
    every = (last + MOST) // MOST
    return rows.filter((index % every == 0) | (index == last))


def describe_thinning(rows: polars.DataFrame) -> str:
    """Say in a sentence what `thinned` leaves out; empty if it leaves out nothing."""
    longest = rows.group_by("run").len()["len"].max() if rows.height else 0
    return (
        f"Curves of more than {MOST} points are thinned evenly." if isinstance(longest, int) and longest > MOST else ""
    )


def compute_medians(rows: polars.DataFrame, columns: Sequence[str]) -> polars.DataFrame:
    """Return arm, step and the medians of `columns` over the seeds, for steps that every seed of the arm has."""
    ends = (
        rows.group_by("arm", "run")
        .agg(polars.col("step").max())
        .group_by("arm")
        .agg(polars.col("step").min().alias("end"))
    )
    return (
        rows.join(ends, on="arm", maintain_order="left")
        .filter(polars.col("step") <= polars.col("end"))
        .group_by("arm", "step", maintain_order=True)
        .agg(polars.col(*columns).median())
    )


class Table(NamedTuple):
    """A table that is ready for JSON: numbers have six digits, and null stands for values that are not finite."""

    columns: list[str]
    rows: list[list[object]]


def convert_table(rows: polars.DataFrame) -> Table:
    """Convert a table to the form in the page, without repeating names for every row."""
    return Table(rows.columns, [[_convert_value(value) for value in row] for row in rows.iter_rows()])


def make_records(rows: polars.DataFrame) -> list[dict[str, object]]:
    """Convert such a table to the records that Vega-Lite reads."""
    names, values = convert_table(rows)
    return [dict(zip(names, row, strict=True)) for row in values]


def _convert_value(value: object) -> object:
    if not isinstance(value, float):
        return value
    short = float(f"{value:.6g}")
    if short != short or short in (float("inf"), float("-inf")):
        return None
    return int(short) if short.is_integer() and abs(short) < 1e15 else short
