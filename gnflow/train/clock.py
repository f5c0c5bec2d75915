"""What a step took: seconds, CPU seconds of this process, and CPU seconds that all other processes took meanwhile.

A machine that works for others as well makes steps slower, and a comparison of seconds worthless. Linux tells how long
its processors have worked for anybody (/proc/stat, in hundredths of a second). Where there is no such file, what others
took is unknown. It is left unknown for a step in which something was compiled, too: compilers are other processes.
"""

import os
import time
from pathlib import Path
from typing import NamedTuple

STAT = Path("/proc/stat")
IDLE = (3, 4)  # places of `idle` and `iowait` among the first eight numbers; those that follow are counted in these


class Taken(NamedTuple):
    """The costs of a step by the clock."""

    seconds: float = 0.0
    """Without compilation."""
    cpu: float = 0.0
    others: float | None = None
    """None where it is not known. It may lie a few hundredths below 0, since the machine counts in hundredths."""


class Clock:
    """Runs from when it is made."""

    def __init__(self, compiled: float) -> None:
        """`compiled` is how many seconds were spent on compilation so far."""
        self._compiled, self._busy = compiled, _busy()
        self._cpu, self._start = time.process_time(), time.perf_counter()

    def taken(self, compiled: float) -> Taken:
        """Since then, with this many seconds spent on compilation by now."""
        seconds, cpu, busy = time.perf_counter() - self._start, time.process_time() - self._cpu, _busy()
        unknown = busy is None or self._busy is None or compiled != self._compiled
        others = None if unknown else (busy or 0.0) - (self._busy or 0.0) - cpu
        return Taken(seconds - (compiled - self._compiled), cpu, others)


def _busy() -> float | None:
    """CPU seconds that the machine has worked, or was kept from working by its host, since it started."""
    try:
        name, *numbers = STAT.read_bytes().split(b"\n", 1)[0].split()
        ticks = [int(number) for number in numbers[:8] if name == b"cpu"]
    except (OSError, ValueError):
        return None
    busy = sum(number for place, number in enumerate(ticks) if place not in IDLE)
    return busy / os.sysconf("SC_CLK_TCK") if busy else None
