"""Show a run directory in a tracker while it grows, without ever delaying training."""

import contextlib
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

from gnflow.errors import Interrupted, Preempted
from gnflow.records import Incomplete, Status, Tracker
from gnflow.spec.tracking import TrackerKind
from gnflow.track import description, location, tail
from gnflow.track.opening import MLFLOW, advance, describe_place, find_reason, is_hopeless, open_tracker, read_identity
from gnflow.train.journal import JOURNAL, Record, read_first_line
from gnflow.workspace import Workspace

if TYPE_CHECKING:
    from gnflow.track.system import System

PERIOD = 1.0  # smallest number of seconds between two batches
LOOK = 10.0  # seconds without a record after which the machine is measured anyway
PATIENCE = 60.0  # seconds after which the run is announced even without a first step
FIRST_PAUSE, LONGEST_PAUSE = 0.5, 20.0  # seconds between attempts while the store does not answer
FLUSH = 30.0  # seconds that closing may take
LOOK_AGAIN = 0.2  # seconds between checks whether an attempt has failed
HURRIED_FLUSH = 5.0  # the same if the store does not answer or the run was stopped, since the user then waits


def _print_to_stderr(message: str) -> None:
    print(message, file=sys.stderr, flush=True)


class Mirror:
    """An observer of a run. Its thread reads the journal from disk; the records that it hears only wake it.

    Errors of the tracker are never raised here; `report` gets a sentence about them.
    """

    def __init__(
        self,
        directory: Path,
        workspace: Workspace,
        tracking: TrackerKind = MLFLOW,
        *,
        report: Callable[[str], None] = _print_to_stderr,
    ) -> None:
        self.directory = directory
        self.problem: str | None = None
        self._workspace = workspace
        self._tracking = tracking
        self._shown = describe_place(tracking, workspace)
        self._report = report
        self._heard = 0
        self._ended: Status | None = None
        self._wake, self._closing, self._abandoned, self._done = (threading.Event() for _ in range(4))
        self._thread = threading.Thread(target=self._live, name="gnflow-mirror", daemon=True)

    def hear(self, record: Record) -> None:
        """Wake the thread, since there is something new in the journal."""
        self._heard += 1
        self._wake.set()

    def __enter__(self) -> Self:
        location.settle_environment()
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        stopped = isinstance(error, Preempted | Interrupted) or not isinstance(error, Exception | None)
        self._ended = "KILLED" if stopped else "FAILED" if error else None
        patience = HURRIED_FLUSH if stopped or self.problem else FLUSH
        self._closing.set()
        self._wake.set()
        with contextlib.suppress(KeyboardInterrupt):  # the user should not wait longer
            self._wait(patience)
        self._abandoned.set()
        if not self._done.is_set():
            reason = self.problem or f"not everything could be sent within {patience:g} s"
            self._tell(
                f"{self._shown} does not have the whole run ({reason}); "
                f"`gnflow track {self.directory}` mirrors it later."
            )

    def _wait(self, patience: float) -> None:
        """Wait until everything is sent, but not for long after an attempt has failed."""
        until = time.monotonic() + patience
        while self._thread.is_alive() and (left := until - time.monotonic()) > 0:
            self._thread.join(min(left, LOOK_AGAIN))
            if self.problem and patience > HURRIED_FLUSH:
                patience, until = HURRIED_FLUSH, min(until, time.monotonic() + HURRIED_FLUSH)

    def _tell(self, sentence: str) -> None:
        with contextlib.suppress(Exception):
            self._report(sentence)

    def _live(self) -> None:
        try:
            self._await_the_first_step()
            if not self._heard or self._follow():
                self._done.set()
        except Exception as error:
            self.problem = find_reason(error)

    def _await_the_first_step(self) -> None:
        # Importing a tracker's package takes seconds of CPU time, which the compilation of the first step needs first.
        self._wake.wait()
        patient_until = time.monotonic() + PATIENCE
        while self._heard < 2 and not self._closing.is_set() and (left := patient_until - time.monotonic()) > 0:
            self._wake.clear()
            if self._heard < 2 and not self._closing.is_set():
                self._wake.wait(left)

    def _follow(self) -> bool:
        """Send the journal as it grows, and return whether everything was sent."""
        tracker: Tracker | None = None
        identity: str | None = None
        system: System | None = None
        pause = FIRST_PAUSE
        while not self._abandoned.is_set():
            closing = self._closing.is_set()  # checked before reading, so that the last reading misses nothing
            self._wake.clear()
            try:
                system = system or self._make_system()
                if system and (closing or system.is_due()):
                    system.sample()
                if tracker is None and (identity := read_identity(self.directory)):
                    tracker = open_tracker(self.directory, self._workspace, self._tracking, running=True)
                if tracker and read_identity(self.directory) != identity:
                    tracker.abandon()
                    return True
                if tracker:
                    self._deliver(tracker, system)
                if closing and not self._abandoned.is_set():
                    return self._finish(tracker)
                self.problem, pause = None, FIRST_PAUSE
                self._closing.wait(PERIOD)
                self._wake.wait(LOOK)
            except Exception as error:
                hopeless = is_hopeless(error)
                self._complain(find_reason(error), "does not accept the run" if hopeless else "does not answer")
                if closing and hopeless:
                    return False
                tracker = None
                (self._abandoned if closing else self._closing).wait(pause)
                pause = FIRST_PAUSE if closing else min(2 * pause, LONGEST_PAUSE)
        return False

    def _deliver(self, tracker: Tracker, system: "System | None") -> None:
        while not self._abandoned.is_set() and advance(tracker, self.directory):
            pass
        if system and system.waiting:
            tracker.take_samples(system.waiting)
            system.waiting.clear()
        tracker.refresh()

    def _finish(self, tracker: Tracker | None) -> bool:
        if tracker:
            status = self._ended or description.read_status(self.directory, "FINISHED")
            try:
                tracker.finish(status, tail.read_span(self.directory)[1])
            except Incomplete as problem:
                self._tell(f"{self._shown} has the run, but not all of its files ({find_reason(problem)}).")
        return True

    def _make_system(self) -> "System | None":
        if not self._tracking.measures or not read_first_line(self.directory / JOURNAL):
            return None
        from gnflow.track.system import System

        return System(tail.read_span(self.directory)[0])

    def _complain(self, reason: str, what: str) -> None:
        if self.problem is None and not self._closing.is_set():
            self._tell(f"{self._shown} {what} ({reason}); it gets everything as soon as it does.")
        self.problem = reason
