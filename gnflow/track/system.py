"""CPU, memory, disk, network and GPU of this machine, as MLflow measures them."""

import importlib
import time
from collections import deque
from contextlib import suppress
from typing import Protocol

from mlflow.entities import Metric

PERIOD = 10.0  # seconds
KEPT = 20_000  # number of values that wait while the store does not answer; the oldest are dropped first

MONITORS = {"cpu": "CPUMonitor", "disk": "DiskMonitor", "network": "NetworkMonitor", "gpu": "GPUMonitor"}


class Monitor(Protocol):
    """A monitor of `mlflow.system_metrics`."""

    def collect_metrics(self) -> object: ...  # noqa: D102
    def aggregate_metrics(self) -> dict[str, float]: ...  # noqa: D102
    def clear_metrics(self) -> None: ...  # noqa: D102


class System:
    """Samples of the machine since `began` (Unix seconds), waiting to be sent.

    MLflow's own thread for this gives up at the first error of the store, so only its measurements are used.
    """

    def __init__(self, began: float) -> None:
        self.waiting: deque[Metric] = deque(maxlen=KEPT)
        self._began = began
        self._monitors = [monitor for name in MONITORS if (monitor := _make_monitor(name)) is not None]
        self._measure()  # the load of a CPU is measured since the last call
        self._last = time.monotonic()

    def is_due(self) -> bool:
        """Return whether `PERIOD` has passed since the last sample."""
        return time.monotonic() - self._last >= PERIOD

    def sample(self) -> None:
        """Measure all monitors once."""
        self._last, now = time.monotonic(), time.time()
        # The step of a point is the second of the run, since a training step may take minutes.
        second, stamp = max(0, round(now - self._began)), round(now * 1000)
        for key, value in self._measure().items():
            self.waiting.append(Metric(f"system/{key}", value, stamp, second))

    def _measure(self) -> dict[str, float]:
        measured: dict[str, float] = {}
        for monitor in self._monitors:
            with suppress(Exception):  # a sensor that fails sometimes must not delay the records of training
                monitor.collect_metrics()
                measured |= monitor.aggregate_metrics()
                monitor.clear_metrics()
        return measured


def _make_monitor(name: str) -> Monitor | None:
    try:
        module = importlib.import_module(f"mlflow.system_metrics.metrics.{name}_monitor")
        monitor: Monitor = getattr(module, MONITORS[name])()
    except Exception:  # psutil, NVML or a GPU may be missing; then this cannot be measured here
        return None
    return monitor
