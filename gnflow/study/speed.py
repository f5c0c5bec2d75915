"""How fast this project's finished runs were: what a plan predicts its time from."""

import json
from collections.abc import Mapping
from pathlib import Path
from statistics import median

from gnflow.study.find import all_in

FARTHEST = 16.0  # larger or smaller, in FLOPs of a pass: small products are slow, and say nothing about large ones


def flops_per_second(runs: Path, device: str, one_pass: int) -> float | None:
    """Median FLOPs per second over the finished runs on this kind of device whose passes are about as large.

    None when there is none: the rate of a toy is not that of a large model.
    """
    rates = [rate for run in all_in(runs) if (rate := _rate(run / "summary.json", device, one_pass)) is not None]
    return median(rates) if rates else None


def pass_flops(regions: Mapping[str, Mapping[str, object]]) -> int:
    """FLOPs of the largest region of a plan: the size of the products that its time goes into."""
    return max((flops for region in regions.values() if isinstance(flops := region.get("flops"), int)), default=0)


def _rate(summary: Path, device: str, one_pass: int) -> float | None:
    try:
        figures = json.loads(summary.read_text())
        plan = json.loads((summary.parent / "plan.json").read_text())
    except (OSError, ValueError):
        return None
    seconds, flops = figures.get("time/seconds"), figures.get("flops/total")
    theirs = pass_flops(plan.get("regions", {}))
    if not theirs or not one_pass or not 1 / FARTHEST <= one_pass / theirs <= FARTHEST:
        return None
    return flops / seconds if seconds and flops and plan.get("device") == device else None
