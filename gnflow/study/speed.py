"""How fast this project's finished runs were: what a plan predicts its time from."""

import json
from pathlib import Path
from statistics import median

from gnflow.study.find import all_in
from gnflow.study.load import QUIET, share
from gnflow.train.journal import OTHERS


def flops_per_second(runs: Path, device: str) -> float | None:
    """Median FLOPs per second over the finished runs on this kind of device; None when there is none.

    Runs on a machine that is known to have been busy with other work count only where there is no other run.
    """
    found = [rate for run in all_in(runs) if (rate := _rate(run / "summary.json", device)) is not None]
    rates = [rate for rate, busy in found if not busy] or [rate for rate, _ in found]
    return median(rates) if rates else None


def _rate(summary: Path, device: str) -> tuple[float, bool] | None:
    """FLOPs per second, and whether the machine is known to have been busy."""
    try:
        figures = json.loads(summary.read_text())
        plan = json.loads((summary.parent / "plan.json").read_text())
    except (OSError, ValueError):
        return None
    seconds, flops = figures.get("time/seconds"), figures.get("flops/total")
    if not seconds or not flops or plan.get("device") != device:
        return None
    load = share(summary.parent, figures.get(OTHERS, 0.0), seconds)
    return flops / seconds, load is not None and load > QUIET
