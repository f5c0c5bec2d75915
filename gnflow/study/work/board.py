"""The state of every task of a study at work, and what follows from an exit code."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from gnflow.errors import Diverged, EnvironmentProblem, Interrupted, Preempted
from gnflow.study.design.design import Design
from gnflow.study.design.tasks import Task, find_state, list_tasks

RESULTS = (0, Diverged.exit_code)
AGAIN = (Preempted.exit_code, EnvironmentProblem.exit_code, Interrupted.exit_code)
ELSEWHERE_SECONDS = 2.0  # between two looks at a run that another process works on
PATIENCE = 2.0  # seconds before the first retry; twice as many before each further one


@dataclass
class Entry:
    """A task at work."""

    task: Task
    state: Literal["waiting", "ready", "running", "elsewhere", "done", "failed"] = "waiting"
    """`elsewhere`: another process works on it. The other states are what they say."""
    tries: int = 0
    since: float = 0.0
    """When it was started last (Unix seconds)."""
    due: float = 0.0
    """When its state on the disk is read next, at the earliest (seconds of time.monotonic)."""
    code: int = 0
    words: str = ""
    """Standard error of its last try, if it failed."""


class Board:
    """The tasks of a study, those that are done on the disk included."""

    def __init__(self, design: Design, retries: int, say: Callable[[str], None]) -> None:
        self.design = design
        self.entries = {task.name: Entry(task) for task in list_tasks(design)}
        self._retries, self._say = retries, say

    def count(self, *states: str) -> int:
        """Return how many tasks are in these states."""
        return len(self.select(*states))

    def select(self, *states: str) -> list[Entry]:
        """Return the tasks in these states."""
        return [entry for entry in self.entries.values() if entry.state in states]

    @property
    def is_over(self) -> bool:
        """Whether nothing runs and nothing can be started any more."""
        return not self.select("ready", "running", "elsewhere") and not any(
            map(self._may_begin, self.select("waiting"))
        )

    def look(self) -> None:
        """Read from the disk the state of every task whose turn it may be."""
        for entry in self.select("waiting", "elsewhere"):
            if entry.due <= time.monotonic() and self._may_begin(entry):
                state = find_state(self.design, entry.task)
                if state == "running":
                    if entry.state == "waiting":
                        self._say(f"{entry.task.name}: another process works on it, and is waited for")
                    entry.state, entry.due = "elsewhere", time.monotonic() + ELSEWHERE_SECONDS
                else:
                    entry.state = "done" if state == "done" else "ready"

    def begin(self, entry: Entry) -> None:
        """Note that a task was started."""
        entry.state, entry.since, entry.tries = "running", time.time(), entry.tries + 1

    def end(self, entry: Entry, code: int, words: str, *, stopping: bool) -> None:
        """Note that a task has ended with an exit code, negative for a signal, and decide whether it is started again.

        After 6, 7, 130 or a signal it is, up to `retries` times. When all work is `stopping`, it stays resumable.
        """
        name, entry.code = entry.task.name, code
        if code in RESULTS:
            entry.state = "done"
            self._say(f"{name}: done ({self.count('done')} of {len(self.entries)})")
        elif stopping:
            entry.state = "ready"
        elif (code in AGAIN or code < 0) and entry.tries <= self._retries:
            # A choice or a run that is still held by a dying process is looked at again before it is started.
            entry.state, entry.due = "waiting", time.monotonic() + PATIENCE * 2 ** (entry.tries - 1)
            self._say(f"{name}: {describe(code)}; it is resumed ({entry.tries} of at most {self._retries})")
        else:
            entry.state, entry.words = "failed", words
            self._say(f"{name}: failed, {describe(code)}")

    def _may_begin(self, entry: Entry) -> bool:
        return all(self.entries[name].state == "done" for name in entry.task.after)


def describe(code: int) -> str:
    """Say how a process ended."""
    return f"killed by signal {-code}" if code < 0 else f"exit code {code}"
