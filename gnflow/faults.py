"""Points in the write paths at which a test has the process killed: GNFLOW_FAULT=checkpoint.after_write:3.

SIGKILL comes at the third passing of that point; without `:3` at the first. Unset, a point costs one comparison.
"""

import os
import signal
from collections.abc import Callable

VARIABLE = "GNFLOW_FAULT"

# Files that are replaced in one move, each with every moment of it.
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
    """Sets what the environment variable would say; nothing when empty. Raises ValueError, with the points."""
    point, _, count = fault.partition(":")
    if fault and (point not in POINTS or not (count or "1").isdecimal() or int(count or 1) < 1):
        raise ValueError(f"{fault!r} is no POINT or POINT:COUNT; the points are\n  " + "\n  ".join(POINTS))
    _Armed.point, _Armed.left = point or None, int(count or 1)


def pass_point(point: str, last: Callable[[], object] | None = None) -> None:
    """Passes a point; where the process is to be killed, after doing `last`: half of what would follow."""
    if _Armed.point != point:
        return
    _Armed.left -= 1
    if _Armed.left == 0:
        if last is not None:
            last()
        os.write(2, f"{VARIABLE}: killed at {point}\n".encode())
        os.kill(os.getpid(), signal.SIGKILL)
