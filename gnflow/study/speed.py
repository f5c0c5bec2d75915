"""How fast this project's finished runs were: what a plan predicts its time from."""

import json
from pathlib import Path
from statistics import median

from gnflow.study.find import all_in


def flops_per_second(runs: Path, device: str) -> float | None:
    """Median FLOPs per second over the finished runs on this kind of device; None when there is none."""
    rates = [rate for run in all_in(runs) if (rate := _rate(run / "summary.json", device)) is not None]
    return median(rates) if rates else None


def _rate(summary: Path, device: str) -> float | None:
    try:
        figures = json.loads(summary.read_text())
        plan = json.loads((summary.parent / "plan.json").read_text())
    except (OSError, ValueError):
        return None
    if not isinstance(figures, dict) or not isinstance(plan, dict):
        return None
    seconds, flops = figures.get("time/seconds"), figures.get("flops/total")
    return flops / seconds if seconds and flops and plan.get("device") == device else None
