"""Write the results of a run: metrics.parquet, summary.json and model/. All can be made again from the other files."""

import io
import json
import shutil
from collections.abc import Mapping
from pathlib import Path

import polars

from gnflow import faults
from gnflow.compiler.plan import Plan
from gnflow.train import checkpoint, disk
from gnflow.train.journal import DEVICE_SECONDS, JOURNAL, OTHERS, Step, compute_identity, read_first_line
from gnflow.train.recorder import AVERAGE_LOSS, UNDONE, compute_cost
from gnflow.train.table import make_table

METRICS, SUMMARY, MODEL, EXPERIMENT = "metrics.parquet", "summary.json", "model", "experiment.yaml"
SAMPLES = "samples"
AVERAGE = "average"
"""In `model/`: the average of the weights, in the form of `model/` itself."""
COMPLETE, PREEMPTED, DIVERGED = "complete", "preempted", "diverged"
AXES = {"passes": "passes/serial", "tokens": "tokens/total", "flops": "flops/total"}


def has_reached_target(plan: Plan, record: Step) -> bool:
    """Return whether this record meets the target of the spec."""
    target = plan.experiment.training.target
    return target is not None and record.values.get(target.metric, float("inf")) <= target.at_most


def is_finished(plan: Plan, record: Step) -> bool:
    """Return whether the run ends with this record: all steps are done, or the target is reached."""
    return record.step >= plan.steps or has_reached_target(plan, record)


def make_summary(plan: Plan, steps: Mapping[int, Step], step: int, status: str) -> dict[str, object]:
    """Make the content of summary.json from the journal up to `step`: status, costs, and the cost to the target."""
    last = steps.get(step, Step(step, 0.0, {}))
    steps = {number: record for number, record in steps.items() if number <= step}
    losses = [record.values["loss/held_out"] for record in steps.values() if "loss/held_out" in record.values]
    averages = [record.values[AVERAGE_LOSS] for record in steps.values() if AVERAGE_LOSS in record.values]
    first = next((record for record in steps.values() if has_reached_target(plan, record)), None)
    target: dict[str, object] = {"step": None, **dict.fromkeys(AXES), "seconds": None}
    if first is not None:
        costs = compute_cost(plan, first.step)
        target = {
            "step": first.step,
            **{axis: costs[column] for axis, column in AXES.items()},
            "seconds": first.values["time/seconds"],
        }
    return {
        "status": status,
        "steps": last.step,
        "loss/held_out": losses[-1] if losses else None,
        **({AVERAGE_LOSS: averages[-1]} if averages else {}),
        "loss/train": last.values.get("loss/train"),
        **compute_cost(plan, last.step),
        **{name: last.values[name] for name in (UNDONE,) if name in last.values},
        **{clock: last.values.get(clock, 0.0) for clock in ("time/seconds", "time/compile", "time/wall")},
        **{
            name: last.values[name]
            for name in (DEVICE_SECONDS, "time/waited", "time/cpu", OTHERS)
            if name in last.values
        },
        **{f"target/{axis}": value for axis, value in target.items()},
    }


def write_metrics(directory: Path, steps: Mapping[int, Step]) -> None:
    """Write metrics.parquet. Raises DiskProblem."""
    content = io.BytesIO()
    make_table(steps.values()).write_parquet(content)
    disk.write(directory / METRICS, content.getvalue())


def write_summary(directory: Path, plan: Plan, steps: Mapping[int, Step], step: int, status: str) -> None:
    """Write summary.json, with the identity that the run also has in MLflow. Raises DiskProblem."""
    line = read_first_line(directory / JOURNAL)
    found = {"run/id": compute_identity(line) if line else None, **make_summary(plan, steps, step, status)}
    disk.write_json(directory / SUMMARY, found)


def write_model(directory: Path, source: Path) -> None:
    """Write model/ with the weights of the checkpoint `source` and their spec, and model/average/ with their average.

    Raises DiskProblem.
    """
    path, partial = directory / MODEL, directory / f"{checkpoint.PARTIAL}{MODEL}"
    with disk.guard_write(path):
        checkpoint.sweep(directory)
        named = _fill(partial, source / checkpoint.PARAMS, directory / EXPERIMENT)
        if checkpoint.count_averaged(source):
            named += _fill(partial / AVERAGE, source / checkpoint.AVERAGE, directory / EXPERIMENT)
            checkpoint.seal(partial / AVERAGE, checkpoint.PARAMS, EXPERIMENT)
        checkpoint.seal(partial, *(str(file.relative_to(partial)) for file in named))
        faults.pass_point("model.after_write")
        shutil.rmtree(path, ignore_errors=True)
        faults.pass_point("model.after_removal")
        partial.rename(path)
        faults.pass_point("model.after_rename")
        disk.sync(directory)


def _fill(folder: Path, weights: Path, experiment: Path) -> list[Path]:
    """Copy weights and the spec that made them into a new folder."""
    folder.mkdir()
    copies = [folder / checkpoint.PARAMS, folder / EXPERIMENT]
    for file, copy in zip((weights, experiment), copies, strict=True):
        shutil.copyfile(file, copy)
        disk.sync(copy)
        faults.pass_point("model.after_file")
    disk.sync(folder)
    return copies


def write_all(directory: Path, plan: Plan, steps: Mapping[int, Step], source: Path) -> None:
    """Write all missing or damaged results of a finished run; the summary last, since it vouches for the others."""
    write_metrics(directory, steps)
    if checkpoint.find_damage(directory / MODEL):
        write_model(directory, source)
    write_summary(directory, plan, steps, checkpoint.read_step(source), COMPLETE)


def read_status(directory: Path) -> str | None:
    """Read the status in summary.json; None if the run is still running, was killed, or does not exist."""
    try:
        found = json.loads((directory / SUMMARY).read_bytes())["status"]
    except (OSError, ValueError, LookupError, TypeError):
        return None
    return str(found)


def is_complete(directory: Path) -> bool:
    """Return whether the run is finished and all of its results are there and undamaged."""
    if read_status(directory) != COMPLETE or checkpoint.find_damage(directory / MODEL):
        return False
    try:
        polars.read_parquet_schema(directory / METRICS)
    except (OSError, polars.exceptions.PolarsError):
        return False
    return True
