"""Measure how busy a machine was with other work during a run; seconds on a busy machine are not comparable."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from gnflow.study import figures
from gnflow.study.arms import Arm
from gnflow.study.scores import count_devices
from gnflow.track.description import read_json
from gnflow.train.journal import OTHERS
from gnflow.train.run import Run

QUIET = 0.1  # fraction of the processors of a run that others may use on a machine that counts as quiet
MOST_NAMED = 3  # largest number of runs named in a sentence


def measure_load(run: Run) -> float | None:
    """Return the fraction of the run's processors that other processes used during steps; None if not recorded."""
    metrics = run.metrics
    if not {OTHERS, "time/seconds"} <= set(metrics.columns):
        return None
    rows = metrics.select("time/seconds", OTHERS).rows()
    first = next((place for place, (_, others) in enumerate(rows) if others is not None), None)
    if first is None:
        return None
    # Before the first known value come a step that compiles, and steps of a version that did not measure this.
    unknown = rows[first - 1][0] if first else 0.0
    return compute_share(run.directory, (rows[-1][1] or 0.0), (rows[-1][0] or 0.0) - (unknown or 0.0))


def compute_share(directory: Path, others: float, seconds: float) -> float | None:
    """Return the CPU seconds of other processes as a fraction of the time of the processors that the run may use.

    It is not known whether others used the same processors. If the run may use only some of them, this assumes so.
    """
    match read_json(directory / "provenance.json").get("sessions"):
        case [*_, {"available": int(processors)}] if seconds > 0:
            return min(max(others, 0.0) / (processors * seconds), 1.0)
        case _:
            return None


def describe_device(run: Run) -> str:
    """Describe the last device of a run and the number of devices, as far as its seconds depend on them."""
    count = count_devices(run)
    return _describe_kind(run) + (f", {count:.3g} devices" if count > 1 else "")


def _describe_kind(run: Run) -> str:
    match read_json(run.directory / "provenance.json").get("sessions"):
        case [*_, {"device": "cpu", "processor": processor, "threads": threads}]:
            return f"{processor}, {threads} threads"
        case [*_, {"device": name}]:
            return str(name)
        case _:
            return str(run.plan.get("device"))


def find_objection(arms: Sequence[Arm]) -> str | None:
    """Return a sentence on why the seconds of these runs cannot be compared; None if they can."""
    runs = {label: run for arm in arms for run, label in zip(arm.runs, arm.labels, strict=True)}
    if len({describe_device(run) for run in runs.values()}) > 1:
        if len({_describe_kind(run) for run in runs.values()}) == 1:
            told = {label: f"{count_devices(run):.3g} in {label}" for label, run in runs.items()}
            return f"Seconds are not compared: the runs were on different numbers of devices, {_join_named(told)}."
        return "Seconds are not compared: the runs were not all on the same kind of device."
    loads = {label: measure_load(run) for label, run in runs.items()}
    busy = {label: f"{found:.0%} in {label}" for label, found in loads.items() if found is not None and found > QUIET}
    if busy:
        return f"Seconds are not compared: other processes took a part of the processors, {_join_named(busy)}."
    if unknown := {label: label for label, found in loads.items() if found is None}:
        return f"Seconds are not compared: how busy the machine was is not recorded for {_join_named(unknown)}."
    return None


def _join_named(told: Mapping[str, str]) -> str:
    names = list(told.values())
    more = len(names) - MOST_NAMED
    return figures.join_words(names if more <= 1 else [*names[:MOST_NAMED], f"{more} more runs"])


def describe_time(arms: Sequence[Arm], objection: str | None) -> list[str]:
    """Say in which circumstances seconds were measured, or why they are not shown."""
    if objection is not None:
        return [objection]
    loads = [load for arm in arms for run in arm.runs if (load := measure_load(run)) is not None]
    busy = f", where other processes took at most {max(loads):.0%} of the processors" if loads else ""
    first = arms[0].runs[0]
    times = f" Device time is {count_devices(first):.3g} times as much." if count_devices(first) > 1 else ""
    return [f"Time: on {describe_device(first)}{busy}, without compilation.{times}"]
