"""Turn the metrics of a step into a record with costs and times; write it to the journal, then tell observers."""

import math
import time
import warnings
from collections.abc import Mapping, Sequence
from typing import Protocol

from gnflow.compiler.plan import Plan
from gnflow.objective import Metrics
from gnflow.secrets import hide_secrets
from gnflow.spec.classes import load_built_in
from gnflow.spec.training import MetricKind
from gnflow.train.clock import Taken
from gnflow.train.journal import DEVICE_SECONDS, OTHERS, Event, Journal, Record, Step

UNDONE = "steps/undone"  # number of undone steps so far; recorded if the spec allows undoing steps

AVERAGE_LOSS = "loss/held_out_average"  # that of the average of the weights; recorded once there is one


class Observer(Protocol):
    """An object that hears every record after it is in the journal. It must return at once."""

    def hear(self, record: Record) -> None:
        """Take note of `record`, which is on disk."""


class Recorder:
    """The writer of the records of one session. Its costs and times continue from those of the journal."""

    def __init__(self, journal: Journal, plan: Plan, observers: Sequence[Observer] = ()) -> None:
        self.journal, self.plan = journal, plan
        self._observers = list(observers)
        self._declared = tuple(prefix for metric in plan.experiment.metrics for prefix in metric.columns)
        self._owned = tuple(prefix for kind in load_built_in(MetricKind) for prefix in kind.columns)
        self._wall = time.perf_counter()
        self._compile = 0.0

    def record_step(self, step: int, values: Mapping[str, float], taken: Taken, compile_seconds: float) -> Step:
        """Record a completed step and the time that it has `taken`; return the record that the journal holds.

        `compile_seconds` is the time spent on compilation in this session so far.
        """
        before = self.journal.steps.get(step - 1)
        last = self.journal.last
        clocks = {
            "time/seconds": _read_value(before, "time/seconds") + taken.seconds,
            "time/cpu": _read_value(before, "time/cpu") + taken.cpu,
            "time/compile": _read_value(last, "time/compile") + compile_seconds - self._compile,
            "time/wall": _read_value(last, "time/wall") + time.perf_counter() - self._wall,
        }
        if taken.devices > 1 or (before and DEVICE_SECONDS in before.values):
            # Until then the run was on one device.
            first = DEVICE_SECONDS if before and DEVICE_SECONDS in before.values else "time/seconds"
            clocks[DEVICE_SECONDS] = _read_value(before, first) + taken.devices * taken.seconds
            clocks["time/waited"] = _read_value(before, "time/waited") + taken.waited
        if taken.others is not None or (before and OTHERS in before.values):
            clocks[OTHERS] = _read_value(before, OTHERS) + (taken.others or 0.0)
        finite = {name: value for name, value in values.items() if math.isfinite(value)}
        wanted = {n: value for n, value in {**finite, **compute_cost(self.plan, step)}.items() if self._is_wanted(n)}
        now = time.time()
        record = Step(step, now, {**wanted, **clocks})
        if self.announce(record, *_find_events(step, now, values)):
            self._wall, self._compile = time.perf_counter(), compile_seconds
        return self.journal.steps[step]

    def _is_wanted(self, column: str) -> bool:
        """Return whether the column belongs to a declared metric, or to no metric at all."""
        return column.startswith(self._declared) or not column.startswith(self._owned)

    def record_event(self, step: int, name: str, message: str) -> None:
        """Record an event, unless the journal already holds it."""
        self.announce(Event(step, time.time(), name, message))

    def announce(self, *records: Record) -> bool:
        """Write to the journal, then tell observers, and drop those that fail. Return whether a record was new."""
        written = self.journal.record(*records)
        for observer in tuple(self._observers):
            try:
                for record in written:
                    observer.hear(record)
            except Exception as error:
                self._observers.remove(observer)
                warnings.warn(
                    f"{type(observer).__name__} failed and hears no more records: {hide_secrets(str(error))}",
                    stacklevel=2,
                )
        return bool(written)


def to_numbers(metrics: Metrics) -> dict[str, float]:
    """Turn 0-D tensors into plain numbers. This waits for the device."""
    return {name: value.item() for name, value in metrics.items()}


def find_divergence(values: Mapping[str, float]) -> str | None:
    """Find the first loss or norm that is not finite. Ratios may be undefined, such as gains over a refused step."""
    for name, value in values.items():
        if not math.isfinite(value) and (name.startswith(("loss/", "norm/")) or name.endswith("loss")):
            return f"{name} is {value}"
    return None


def compute_cost(plan: Plan, step: int) -> dict[str, float]:
    """Return the cost of `step` steps."""
    return {
        "tokens/solve": step * plan.tokens_solve,
        "tokens/search": step * plan.tokens_search,
        "tokens/total": step * (plan.tokens_solve + plan.tokens_search),
        "passes/serial": step * plan.passes,
        "flops/total": step * plan.flops,
    }


def _find_events(step: int, now: float, values: Mapping[str, float]) -> list[Event]:
    if values.get("gn/alpha") == 0:
        return [Event(step, now, "refused", "no trial step improved on the anchor; the iterate stays")]
    return []


def _read_value(record: Step | None, name: str) -> float:
    return float(record.values.get(name, 0.0)) if record else 0.0
