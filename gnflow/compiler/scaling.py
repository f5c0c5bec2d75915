"""Predict how much faster several devices are, and say what keeps them from being as many times as fast.

    seconds of a step = FLOPs of the busiest device / rate + bytes that it sends / bandwidth

The FLOPs of a step are those of the solve, of the search and of the updates, which are shared out in different ways.
"""

from collections import Counter
from math import ceil
from typing import NamedTuple

from gnflow.compiler.devices import count_microbatches_of_mean, measure_memory, share_out
from gnflow.compiler.plan import Plan

SOLVE = ("gradient", "curved", "product", "diagonal")
SEARCH = ("value", "curved_value")
GOOD = 0.99
"""Efficiency from which nothing is worth a word."""


class Forecast(NamedTuple):
    """The cost of a step on a number of devices, as predicted."""

    devices: int
    flops: float
    """FLOPs of the busiest device."""
    sent: int
    """Bytes that the device sends which sends most."""
    memory: dict[str, int]
    """Bytes by class on the device that needs most."""
    seconds: float | None
    """Seconds of the step; None if no rate is known."""
    efficiency: float
    """Speed-up over one device, relative to the number of devices. Messages count if the bandwidth is known."""
    limit: str
    """The main reason why the efficiency is below 1, in words. Empty if it is nearly 1."""


def predict(plan: Plan, size: int, rate: float | None = None, bandwidth: float | None = None) -> Forecast:
    """Predict a step on `size` devices.

    `rate` is in FLOPs per second and device, `bandwidth` in bytes per second and device. Raises SpecError if some
    devices would have nothing to do.
    """
    devices, whole = share_out(plan, size), _divide_flops(plan)
    work, update = max(device.work for device in devices), max(device.update for device in devices)
    shares = {"solve": work, "update": work if plan.blocks else update, "search": _find_search_share(plan, size)}
    busiest = {kind: whole[kind] * share for kind, share in shares.items()}
    sent = max(device.sent for device in devices)
    lost = {kind: flops - whole[kind] / size for kind, flops in busiest.items()}
    total, needed = sum(whole.values()), sum(busiest.values())
    timed = needed
    if rate and bandwidth:
        lost["exchange"] = sent / bandwidth * rate
        timed += lost["exchange"]
    efficiency = total / (size * timed)
    cause = max(lost, key=lambda kind: lost[kind])
    limit = "" if efficiency >= GOOD else f"{_explain(plan, cause, size, shares)} ({lost[cause] / timed:.0%} of a step)"
    memory = max(measure_memory(plan, size), key=lambda each: sum(each.values()))
    return Forecast(size, needed, sent, memory, timed / rate if rate else None, efficiency, limit)


def _divide_flops(plan: Plan) -> Counter[str]:
    """Return the FLOPs of a step on one device by what they are for."""
    found: Counter[str] = Counter(solve=0, update=0, search=0)
    for name, calls in plan.calls.items():
        main = name.partition(".")[0]
        kind = "solve" if main in SOLVE else "search" if main in SEARCH else "update"
        found[kind] += round(calls * plan.regions[name].flops)
    return found


def _find_search_share(plan: Plan, size: int) -> float:
    """Return the part of the losses of a search that the busiest device computes."""
    count = plan.cost.search
    return ceil(count / size) / count if count >= size else 1.0


def _explain(plan: Plan, cause: str, size: int, shares: dict[str, float]) -> str:
    match cause:
        case "exchange":
            return "messages"
        case "search":
            return f"{plan.cost.search} micro-batches of the search on {size} devices"
        case "solve" | "update" if plan.blocks:
            return f"blocks of unequal cost: the busiest device has {shares['solve']:.0%} of it"
        case "solve":
            return f"{count_microbatches_of_mean(plan)} micro-batches of a mean on {size} devices"
        case _ if plan.parts:
            return f"parts of unequal cost: the busiest device has {shares['update']:.0%} of the updates"
        case _:
            return "updates, which each device makes in full; `compile.update: parts` shares them"
