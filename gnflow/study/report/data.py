"""Runs of a comparison as tables: a row for each step, thinned where a chart could not show more."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import polars

from gnflow.study.arms import Arm

MOST = 300  # rows of one run in one chart


def recorded(arms: Sequence[Arm], columns: Mapping[str, str]) -> polars.DataFrame:
    """arm, run, seed, step and `columns` (new name -> name in the metrics) of the steps that have all of them.

    Empty, without columns, where no run has.
    """
    frames = [_rows(arm.name, run.experiment.training.seed, run.metrics, columns) for arm in arms for run in arm.runs]
    there = [frame for frame in frames if frame.height]
    return polars.concat(there) if there else polars.DataFrame()


def _rows(arm: str, seed: int, metrics: polars.DataFrame, columns: Mapping[str, str]) -> polars.DataFrame:
    if not set(columns.values()) <= set(metrics.columns):
        return polars.DataFrame()
    return metrics.select(
        polars.lit(arm).alias("arm"),
        polars.lit(f"{arm}, seed {seed}").alias("run"),
        polars.lit(seed, dtype=polars.Int64).alias("seed"),
        "step",
        *(polars.col(old).cast(polars.Float64).alias(new) for new, old in columns.items()),
    ).drop_nulls()


def names(arms: Sequence[Arm], prefix: str) -> list[str]:
    """The columns of the metrics under `prefix`, of all runs."""
    return sorted({name for arm in arms for run in arm.runs for name in run.metrics.columns if name.startswith(prefix)})


def thinned(rows: polars.DataFrame, by: str = "run") -> polars.DataFrame:
    """At most about MOST rows for each value of `by`: every k-th, and the first and the last."""
    index, last = polars.int_range(polars.len()).over(by), polars.len().over(by) - 1
    every = (last + MOST) // MOST
    return rows.filter((index % every == 0) | (index == last))


def thinning(rows: polars.DataFrame) -> str:
    """A sentence about what `thinned` leaves out; empty where it leaves out nothing."""
    longest = rows.group_by("run").len()["len"].max() if rows.height else 0
    return (
        f"Curves of more than {MOST} points are thinned evenly." if isinstance(longest, int) and longest > MOST else ""
    )


def medians(rows: polars.DataFrame, columns: Sequence[str]) -> polars.DataFrame:
    """arm, step and the medians of `columns` over the seeds, as far as every seed of the arm got."""
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
    """Ready for JSON: numbers to six digits, null for what is not finite."""

    columns: list[str]
    rows: list[list[object]]


def plain(rows: polars.DataFrame) -> Table:
    """A table as the page holds it, without a name at every value."""
    return Table(rows.columns, [[_plain(value) for value in row] for row in rows.iter_rows()])


def records(rows: polars.DataFrame) -> list[dict[str, object]]:
    """The same as Vega-Lite takes it."""
    names, values = plain(rows)
    return [dict(zip(names, row, strict=True)) for row in values]


def _plain(value: object) -> object:
    if not isinstance(value, float):
        return value
    short = float(f"{value:.6g}")
    if short != short or short in (float("inf"), float("-inf")):
        return None
    return int(short) if short.is_integer() and abs(short) < 1e15 else short
