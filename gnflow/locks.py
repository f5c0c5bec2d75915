"""One process at a time, the others waiting, for what is made once and used by all."""

import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO


@contextmanager
def lock_file(path: Path, waiting: Callable[[], None] = lambda: None) -> Iterator[None]:
    """Hold a lock that the kernel drops when the process ends, however it ends; remove its file afterwards."""
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
    """Whether `file` is the one that `path` names: whoever held the lock before may have removed it."""
    try:
        return os.path.samestat(path.stat(), os.fstat(file.fileno()))
    except FileNotFoundError:
        return False
