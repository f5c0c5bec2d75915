"""Locks between processes: one process makes what all of them use, and the others wait."""

import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO


@contextmanager
def lock_file(path: Path, waiting: Callable[[], None] = lambda: None) -> Iterator[None]:
    """Hold the lock at `path`, and remove its file afterwards. The kernel drops the lock when the process ends.

    `waiting` is called once if another process holds the lock.
    """
    while True:
        with path.open("ab") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                waiting()
                fcntl.flock(file, fcntl.LOCK_EX)
            if not _is_current(path, file):
                continue
            try:
                yield
            finally:
                path.unlink()
            return


def _is_current(path: Path, file: BinaryIO) -> bool:
    """Return whether `path` still names `file`. The process that held the lock before may have removed it."""
    try:
        return os.path.samestat(path.stat(), os.fstat(file.fileno()))
    except FileNotFoundError:
        return False
