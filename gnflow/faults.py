"""Points in the write paths at which a test can kill the process: GNFLOW_FAULT=checkpoint.after_write:3.

SIGKILL comes when that point is passed for the third time, or for the first time without `:3`. If the variable is not
set, a point costs one comparison.
"""

import os
import signal
from collections.abc import Callable

VARIABLE = "GNFLOW_FAULT"

# Every file that is replaced in one move has all of these moments.
FILES = ("experiment", "plan", "provenance", "state", "manifest", "metrics", "summary")
MOMENTS = ("before_write", "in_write", "after_write", "after_rename")
POINTS = (
    "journal.before_write", "journal.in_write", "journal.after_write", "journal.after_sync",
    "checkpoint.before_write", "checkpoint.in_file", "checkpoint.after_file", "checkpoint.after_write",
    "checkpoint.after_removal", "checkpoint.after_rename", "checkpoint.after_sync", "checkpoint.in_prune",
    "shards.before_write", "shards.in_write", "shards.after_file", "shards.after_write", "shards.after_rename",
    "start.after_weights",
    "model.after_file", "model.after_write", "model.after_removal", "model.after_rename",
    *(f"{file}.{moment}" for file in FILES for moment in MOMENTS),
)  # fmt: skip


class _Armed:
    point: str | None = None
    left = 0


def arm(fault: str) -> None:
    """Choose the point and the count, in the form of the environment variable; an empty `fault` chooses none.

    Raises ValueError, with the names of all points, for an unknown point or count.
    """
    point, _, count = fault.partition(":")
    if fault and (point not in POINTS or not (count or "1").isdecimal() or int(count or 1) < 1):
        raise ValueError(f"expected POINT or POINT:COUNT, got {fault!r}; the points are\n  " + "\n  ".join(POINTS))
    _Armed.point, _Armed.left = point or None, int(count or 1)


def pass_point(point: str, last: Callable[[], object] | None = None) -> None:
    """Kill the process if this is the chosen point. Before that, call `last`, which does half of the next work."""
    if _Armed.point != point:
        return
    _Armed.left -= 1
    if _Armed.left == 0:
        if last is not None:
            last()
        os.write(2, f"{VARIABLE}: killed at {point}\n".encode())
        os.kill(os.getpid(), signal.SIGKILL)
