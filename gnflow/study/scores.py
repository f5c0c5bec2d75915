"""Compute what a run needed to reach a target, on five axes.

Seconds are those of the run. On several devices it also has device-seconds, which are seconds times devices.
"""

from collections.abc import Mapping
from typing import NamedTuple

from gnflow.train.journal import DEVICE_SECONDS
from gnflow.train.run import Run

METRIC = "loss/held_out"
# The column of each axis: the five axes of a verdict, and the two that tokens are the sum of.
COLUMNS = {
    "steps": "step",
    "passes": "passes/serial",
    "tokens": "tokens/total",
    "tokens/solve": "tokens/solve",
    "tokens/search": "tokens/search",
    "flops": "flops/total",
    "seconds": "time/seconds",
    "device_seconds": DEVICE_SECONDS,
}
WORDS = {"steps": "steps", "passes": "serial passes", "tokens": "tokens", "flops": "FLOPs", "seconds": "seconds"}
Costs = dict[str, float]


class Score(NamedTuple):
    """The score of one run at one target."""

    name: str
    kind: str
    seed: int
    start: float | None
    """Held-out loss of the starting weights."""
    best: float | None
    """The best held-out loss; None if it was never measured."""
    needed: Costs | None
    """Cost at the first evaluation that reached the target; None if the target was missed."""
    spent: Costs
    """Cost at the last evaluation of the run."""


def score_run(run: Run, name: str, target: float) -> Score:
    """Score one run at one target."""
    rows = run.metrics.to_dicts()
    evaluated = [row for row in rows if row.get(METRIC) is not None]
    losses = [row[METRIC] for row in evaluated]
    reached = next((row for row in evaluated if row[METRIC] <= target), None)
    return Score(
        name,
        run.experiment.optimizer.kind,
        run.experiment.training.seed,
        evaluated[0][METRIC] if evaluated and evaluated[0]["step"] == 0 else None,
        min(losses, default=None),
        None if reached is None else read_costs(run, reached),
        read_costs(run, evaluated[-1]) if evaluated else dict.fromkeys(COLUMNS, 0.0),
    )


def read_costs(run: Run, row: Mapping[str, float | None]) -> Costs:
    """Return the costs in a row of the metrics. If a run does not record them, the planned costs are used."""
    planned = select_numbers(run.plan.get("step"))
    planned["flops/total"] = planned.get("flops", 0.0)
    steps = row["step"] or 0.0
    recorded = {axis: row.get(column) for axis, column in COLUMNS.items()}
    if recorded["device_seconds"] is None:
        recorded["device_seconds"] = recorded["seconds"]  # on one device
    return {
        axis: steps * planned.get(COLUMNS[axis], 0.0) if value is None else value for axis, value in recorded.items()
    }


def count_devices(run: Run) -> float:
    """Return the number of devices of a run, or its mean over the seconds if the number changed."""
    if DEVICE_SECONDS not in run.metrics.columns:
        return 1.0
    times = run.metrics.select("time/seconds", DEVICE_SECONDS).drop_nulls().rows()
    return times[-1][1] / times[-1][0] if times and times[-1][0] else 1.0


def select_numbers(tree: object) -> dict[str, float]:
    """Return the numbers of a JSON object, without other values."""
    found = tree.items() if isinstance(tree, Mapping) else ()
    return {key: value for key, value in found if isinstance(value, int | float)}
