"""Refuse to run in a process forked from one that used threads, since torch or polars would hang there."""

import os
import select
import signal
import threading
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import polars
import torch

from gnflow.errors import EnvironmentProblem

FORKED = 0x40  # PF_FORKNOEXEC of Linux: the process began as a copy of another one, and still runs its program
FLAGS = 6  # their place in /proc/self/stat, counted after the name of the program
PATIENCE = 10.0  # seconds for what takes milliseconds


class Pool(NamedTuple):
    """The threads of one library: whether some live in this process, and work that needs them."""

    library: str
    lives: Callable[[list[str]], bool]
    work: Callable[[], object]


def _has_torch_threads(names: list[str]) -> bool:
    """Return whether torch's threads exist. They have the program's name, as Python's have; no library has as many."""
    return names.count(names[0]) - threading.active_count() >= torch.get_num_threads() - 1


POOLS = (
    Pool("torch", _has_torch_threads, lambda: torch.ones(1 << 16).add_(1)),
    Pool(
        "polars",
        lambda names: "polars-0" in names,
        lambda: polars.DataFrame({"a": range(1000)}).lazy().group_by("a").len().collect(),
    ),
)


def require_threads() -> None:
    """Raise EnvironmentProblem if threads were left behind in the process that this one was forked from.

    No library says so: it would hang. A copy of this process tries each of them, and is ended when it does.
    """
    if not _is_copy():
        return
    names = _list_thread_names()
    for library, lives, work in POOLS:
        if not lives(names) and not _can_copy_work(work):
            raise EnvironmentProblem(
                f"this process was forked from one in which {library} has used threads, so it would hang; "
                'start it with multiprocessing.get_context("spawn") or as a program of its own'
            )


def _is_copy() -> bool:
    try:
        stat = Path("/proc/self/stat").read_text()
    except OSError:
        return False
    return bool(int(stat.rpartition(")")[2].split()[FLAGS]) & FORKED)


def _list_thread_names() -> list[str]:
    """List the names of this process's threads, the main one's first."""
    tasks = sorted(Path("/proc/self/task").iterdir(), key=lambda task: task.name != str(os.getpid()))
    return [(task / "comm").read_text().strip() for task in tasks]


def _can_copy_work(work: Callable[[], object]) -> bool:
    receiver, sender = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # Python warns of a fork of a process with threads
        child = os.fork()
    if not child:
        try:
            work()
            os.write(sender, b"1")
        finally:
            os._exit(0)
    os.close(sender)
    try:
        answered, _, _ = select.select([receiver], [], [], PATIENCE)
        return bool(answered and os.read(receiver, 1))
    finally:
        os.close(receiver)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
