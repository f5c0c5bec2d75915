"""The time of a step: seconds, CPU seconds of the run, and CPU seconds of all other processes meanwhile.

If other processes use the machine, steps are slower and a comparison of seconds is worthless. Linux reports how long
the processors have worked for all processes (/proc/stat, in hundredths of a second). Without this file, the time of
others is unknown. It is also left unknown for a step in which something was compiled, since compilers are other
processes.
"""

import os
import time
from pathlib import Path
from typing import NamedTuple

STAT = Path("/proc/stat")
# Only the first eight numbers are counted, since the later ones are included in them; `idle` and `iowait` are not work.
COUNTED = 8
IDLE = (3, 4)


class Taken(NamedTuple):
    """The time that a step took."""

    seconds: float = 0.0
    """Seconds of the step, without compilation."""
    cpu: float = 0.0
    """CPU seconds of the processes of the run."""
    others: float | None = None
    """CPU seconds of other processes; None if unknown. May be slightly negative, as the machine counts in
    hundredths."""
    devices: int = 1
    """Number of processes that worked on the step, each with a device of its own."""
    waited: float = 0.0
    """Seconds in which this process exchanged tensors with others or waited for them."""


class Clock:
    """A clock that starts when it is made."""

    def __init__(self, compiled: float) -> None:
        """Start the clock. `compiled` is the number of seconds spent on compilation so far."""
        self._compiled, self._busy = compiled, _read_busy_seconds()
        self._cpu, self._start = time.process_time(), time.perf_counter()

    def measure(self, compiled: float) -> Taken:
        """Return the time since the clock started; `compiled` is the number of seconds spent on compilation by now."""
        seconds, cpu, busy = time.perf_counter() - self._start, time.process_time() - self._cpu, _read_busy_seconds()
        others = None
        if busy is not None and self._busy is not None and compiled == self._compiled:
            others = busy - self._busy - cpu
        return Taken(seconds - (compiled - self._compiled), cpu, others)


def _read_busy_seconds() -> float | None:
    """Return the CPU seconds that the machine has worked, or that its host took from it, since it started."""
    try:
        name, *numbers = STAT.read_bytes().split(b"\n", 1)[0].split()
        ticks = [int(number) for number in numbers[:COUNTED] if name == b"cpu"]
    except (OSError, ValueError):
        return None
    busy = sum(number for place, number in enumerate(ticks) if place not in IDLE)
    return busy / os.sysconf("SC_CLK_TCK") if busy else None
