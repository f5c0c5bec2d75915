"""The journal as a polars table with a row for each step and a column for each value."""

from collections.abc import Iterable

import polars

from gnflow.train.journal import Step

ORDER = (
    "loss/train", "loss/held_out", "loss/held_out_average",
    "tokens/solve", "tokens/search", "tokens/total", "passes/serial", "flops/total",
    "time/seconds", "time/device_seconds", "time/waited", "time/cpu", "time/others", "time/compile", "time/wall",
    "learning_rate", "norm/gradient", "norm/update",
    "gn/alpha", "gn/predicted_decrease", "gn/actual_decrease", "gn/gain_ratio",
    "gn/damping", "gn/decrement", "gn/kappa", "gn/cg_iterations", "gn/residual",
)  # fmt: skip
INTEGERS = ("tokens/", "passes/", "steps/")  # FLOPs may exceed 64-bit integers


def make_table(steps: Iterable[Step]) -> polars.DataFrame:
    """Make the table, sorted by step, with null for missing values. Known columns come first, the others by name."""
    records = sorted(steps, key=lambda record: record.step)
    names = {name for record in records for name in record.values}
    ordered = [name for name in ORDER if name in names] + sorted(names - set(ORDER))
    columns: dict[str, polars.Series] = {
        "step": polars.Series([record.step for record in records], dtype=polars.Int64),
    }
    for name in ordered:
        kind = polars.Int64 if name.startswith(INTEGERS) else polars.Float64
        columns[name] = polars.Series([record.values.get(name) for record in records], dtype=kind, strict=False)
    return polars.DataFrame(columns)
