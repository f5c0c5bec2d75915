"""A lock, so that only one process at a time works in a run directory."""

import fcntl
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from gnflow.errors import EnvironmentProblem
from gnflow.train import disk

NAME = ".lock"


@contextmanager
def hold(directory: Path) -> Iterator[None]:
    """Lock the directory until the block ends or the process dies, in any way.

    The file stays; only the kernel's lock on it counts. Raises EnvironmentProblem when another process holds it.
    """
    path = directory / NAME
    with disk.guard_write(path):
        directory.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(descriptor, 200, 0).decode(errors="replace").strip() or "unknown"
            raise EnvironmentProblem(
                f"{directory} is in use by another process ({holder}); wait for it, stop it, or give another --run-dir"
            ) from None
        with disk.guard_write(path):
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, f"pid {os.getpid()} on {socket.gethostname()}\n".encode(), 0)
        yield
    finally:
        os.close(descriptor)


def is_held(directory: Path) -> bool:
    """Return whether a process holds the lock, here or on another machine that shares the directory."""
    try:
        descriptor = os.open(directory / NAME, os.O_RDWR)
    except FileNotFoundError:
        return False
    try:
        # A free lock is taken for an instant, in which a run that starts is refused as one in use.
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False
