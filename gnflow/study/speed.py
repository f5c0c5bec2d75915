"""Measure how fast the finished runs of this project were, so that a plan can predict its time."""

import json
from collections.abc import Iterable
from pathlib import Path
from statistics import median

from gnflow.study.find import list_runs
from gnflow.study.load import QUIET, compute_share
from gnflow.track.description import read_json
from gnflow.train.journal import DEVICE_SECONDS, OTHERS

# Speeds are comparable up to this ratio of FLOPs per pass, since small products are slower than large ones.
FARTHEST = 16.0


def measure_speed(runs: Path, device: str, one_pass: int) -> float | None:
    """Return the median FLOPs per second and device of finished runs here whose passes are about as large.

    Return None if there are no such runs, since a tiny model does not predict the speed of a large one. Runs on a
    machine that was busy with other work count only if there is no other run.
    """
    found = [
        rate for run in list_runs(runs) if (rate := _measure_run(run / "summary.json", device, one_pass)) is not None
    ]
    rates = [rate for rate, busy in found if not busy] or [rate for rate, _ in found]
    return median(rates) if rates else None


def measure_bandwidth(runs: Path, device: str) -> float | None:
    """Return the median bytes per second that a process sent in finished runs on several devices of this kind.

    The seconds are all those in which process 0 exchanged or waited. Return None if there are no such runs.
    """
    found = [rate for run in list_runs(runs) if (rate := _measure_exchange(run / "summary.json", device)) is not None]
    return median(found) if found else None


def _measure_exchange(summary: Path, device: str) -> float | None:
    figures, plan = read_json(summary), read_json(summary.parent / "plan.json")
    match figures, read_json(summary.parent / "provenance.json").get("sessions"):
        case {"steps": int(steps), "time/waited": float(waited)}, [*sessions] if waited > 0:
            sent = {each.get("sent_a_step", 0) for each in sessions if isinstance(each, dict)}
            # A run whose number of devices changed does not tell what it sent in which seconds.
            return steps * sent.pop() / waited if len(sent) == 1 and plan.get("device") == device else None
        case _:
            return None


def find_pass_flops(flops: Iterable[object]) -> int:
    """Return the largest of the FLOPs of the regions of a plan, since that region takes most of the time."""
    return max((each for each in flops if isinstance(each, int)), default=0)


def _measure_run(summary: Path, device: str, one_pass: int) -> tuple[float, bool] | None:
    """Return FLOPs per second, and whether the machine is known to have been busy."""
    try:
        figures = json.loads(summary.read_text())
        plan = json.loads((summary.parent / "plan.json").read_text())
    except (OSError, ValueError):
        return None
    if not isinstance(figures, dict) or not isinstance(plan, dict):
        return None
    seconds, flops = figures.get("time/seconds"), figures.get("flops/total")
    device_seconds = figures.get(DEVICE_SECONDS, seconds)
    theirs = find_pass_flops(region.get("flops") for region in plan.get("regions", {}).values())
    if not theirs or not one_pass or not 1 / FARTHEST <= one_pass / theirs <= FARTHEST:
        return None
    if not seconds or not flops or plan.get("device") != device:
        return None
    load = compute_share(summary.parent, figures.get(OTHERS, 0.0), seconds)
    return flops / device_seconds, load is not None and load > QUIET
