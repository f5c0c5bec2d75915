"""Work on a study: start what is ready wherever a slot is free, until nothing is left or a signal comes."""

import os
import signal
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from types import FrameType

from gnflow.errors import GnflowError, Interrupted, Preempted
from gnflow.study.design.design import Design
from gnflow.study.design.tasks import Task
from gnflow.study.work.board import Board
from gnflow.study.work.executor import Command, Executor, find_errors
from gnflow.train import disk
from gnflow.train.signals import list_signals

LOGS = ".work"
"""In the folder of the runs of a study: the output of its commands."""
TICK = 0.5  # seconds


def work(
    design: Design,
    executor: Executor,
    board: Board,
    environment: Mapping[str, str],
    show: AbstractContextManager[object],
    say: Callable[[str], None],
) -> GnflowError | None:
    """Run the tasks of a board until nothing is left to start. Return the error that says so if a signal ended it.

    On a signal every command is asked to save and end, and a second one kills them. Their runs can be resumed.
    """
    logs = design.workspace.runs / design.study.name / LOGS
    with disk.guard_write(logs):
        logs.mkdir(parents=True, exist_ok=True)
    with listen() as received:
        try:
            with show:
                while not received:
                    board.look()
                    if board.is_over:
                        return None
                    for entry in board.select("ready")[: executor.slots - board.count("running")]:
                        executor.start(entry.task.name, _make_command(design, logs, entry.task, environment))
                        board.begin(entry)
                    _collect(board, executor, logs, stopping=False)
                if board.count("running"):
                    say("stopping: every run finishes its step and saves; once more to stop at once")
                    executor.stop()
                while board.count("running"):
                    if len(received) > 1:
                        executor.kill()
                    _collect(board, executor, logs, stopping=True)
        finally:
            executor.close()
        words = f"stopped by {received[0].name}; the same command goes on"
        return Interrupted(words) if received[0] is signal.SIGINT else Preempted(words)


@contextmanager
def listen() -> Iterator[list[signal.Signals]]:
    """Collect the signals that would stop this process, in the order in which they come."""
    received: list[signal.Signals] = []

    def note(number: int, frame: FrameType | None) -> None:
        received.append(signal.Signals(number))

    before = {number: signal.signal(number, note) for number in list_signals()}
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _make_command(design: Design, logs: Path, task: Task, environment: Mapping[str, str]) -> Command:
    output = logs / f"{task.name}.log"
    return Command(task.arguments, os.fspath(design.workspace.root), os.fspath(output), environment)


def _collect(board: Board, executor: Executor, logs: Path, *, stopping: bool) -> None:
    for name, code in executor.collect(TICK):
        errors = find_errors(logs / f"{name}.log")
        words = errors.read_text(errors="replace").strip() if errors.exists() else ""
        board.end(board.entries[name], code, words, stopping=stopping)
