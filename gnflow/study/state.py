"""Find the state of a run from its directory."""

import os
import re
import socket
from pathlib import Path

from gnflow.train.journal import JOURNAL
from gnflow.train.lock import NAME as LOCK
from gnflow.train.run import Run

RUNNING, UNFINISHED = "running", "unfinished"


def find_status(run: Run) -> str:
    """Return the status in the summary, `running` while the process lives, or `unfinished` if it was killed."""
    lock, summary = run.directory / LOCK, run.directory / "summary.json"
    ended = run.summary.get("status")
    began = _find_modified(lock)
    # A summary older than the lock is that of an earlier session.
    if ended is not None and (began is None or (_find_modified(summary) or 0.0) >= began):
        return str(ended)
    return RUNNING if began is not None and _is_alive(lock) else str(ended or UNFINISHED)


def find_last_record(run: Run) -> float | None:
    """Return when something was last recorded (in Unix seconds)."""
    return _find_modified(run.directory / JOURNAL)


def _is_alive(lock: Path) -> bool:
    """Return whether the process that took the lock still lives on this machine. The lock itself is not touched."""
    found = re.fullmatch(r"pid (\d+) on (\S+)", lock.read_text(errors="replace").strip())
    if found is None or found[2] != socket.gethostname():
        return False
    try:
        os.kill(int(found[1]), 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _find_modified(path: Path) -> float | None:
    try:
        return path.stat().st_mtime
    except FileNotFoundError:
        return None
