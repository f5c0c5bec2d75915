"""Check the schedules of an optimizer against the length of its run."""

from collections.abc import Iterator

from gnflow.spec.optimizer import ConjugateGradients, GaussNewton, Method
from gnflow.spec.parts import list_own_schedules
from gnflow.spec.schedules import AnySchedule, find_misfit
from gnflow.spec.tree import KeyPath


def list_schedules(optimizer: Method | GaussNewton) -> Iterator[tuple[KeyPath, AnySchedule]]:
    """Yield every schedule that an update follows, each with the keys that lead to it from `optimizer`."""
    yield ("schedule",), optimizer.schedule
    follows, before = (optimizer.inner, ("inner",)) if isinstance(optimizer, GaussNewton) else (optimizer, ())
    if not isinstance(follows, ConjugateGradients):
        for path, schedule in list_own_schedules(follows.rules, getattr(follows, "others", None)):
            yield (*before, *path), schedule


def count_updates(optimizer: Method | GaussNewton, steps: int) -> int:
    """Return the number of updates that a schedule counts in a run of `steps` steps (Gauss-Newton: inner updates)."""
    return steps * optimizer.inner_steps if isinstance(optimizer, GaussNewton) else steps


def find_misfits(optimizer: Method | GaussNewton, steps: int) -> Iterator[tuple[KeyPath, str]]:
    """Yield the keys of every warm-up or decay that does not fit into a run of `steps` steps, and the reason."""
    for path, schedule in list_schedules(optimizer):
        if misfit := find_misfit(schedule, count_updates(optimizer, steps)):
            key, why = misfit
            yield (*path, key), why
