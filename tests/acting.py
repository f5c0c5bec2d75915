"""Observers that do something once a step is recorded, such as to crash."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from gnflow.compiler.plan import Plan
from gnflow.train.journal import Record, Step
from gnflow.train.loop import Watch


class Crash(BaseException):
    """What nothing catches."""


def crash() -> None:
    raise Crash


class Acting:
    """Acts as soon as the step is on record."""

    def __init__(self, step: int, act: Callable[[], object]) -> None:
        self.step, self.act = step, act

    def hear(self, record: Record) -> None:
        if isinstance(record, Step) and record.step == self.step:
            self.act()


def at(step: int, act: Callable[[], object] = crash) -> Watch:
    """The same for a run."""

    @contextmanager
    def watching(plan: Plan, directory: Path) -> Iterator[Acting]:
        yield Acting(step, act)

    return watching
