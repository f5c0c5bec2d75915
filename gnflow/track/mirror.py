"""Mirror a run directory to MLflow while it grows, without ever delaying training."""

import contextlib
import socket
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

from gnflow.errors import EnvironmentProblem, Interrupted, Preempted, walk_causes
from gnflow.secrets import hide_secrets
from gnflow.track import description, location, tail
from gnflow.train.journal import JOURNAL, Record, read_first_line
from gnflow.workspace import Workspace

if TYPE_CHECKING:
    from gnflow.track.link import Link
    from gnflow.track.system import System

AWAY = (ConnectionError, TimeoutError, socket.gaierror)
LONGEST_REASON = 500  # characters
PERIOD = 1.0  # smallest number of seconds between two batches
LOOK = 10.0  # seconds without a record after which the machine is measured anyway
PATIENCE = 60.0  # seconds after which the run is announced even without a first step
FIRST_PAUSE, LONGEST_PAUSE = 0.5, 20.0  # seconds between attempts while the store does not answer
FLUSH = 30.0  # seconds that closing may take
LOOK_AGAIN = 0.2  # seconds between checks whether an attempt has failed
HURRIED_FLUSH = 5.0  # the same if the store does not answer or the run was stopped, since the user then waits


class StoreAway(EnvironmentProblem):
    """An error that means that the store does not answer, for any run."""


def _print_to_stderr(message: str) -> None:
    print(message, file=sys.stderr, flush=True)


class Mirror:
    """An observer of a run. Its thread reads the journal from disk; the records that it hears only wake it.

    Errors of MLflow are never raised here; `report` gets a sentence about them.
    """

    def __init__(
        self,
        directory: Path,
        workspace: Workspace,
        *,
        report: Callable[[str], None] = _print_to_stderr,
    ) -> None:
        self.directory = directory
        self.problem: str | None = None
        self._uri = location.find_tracking_uri(workspace)
        self._shown = f"MLflow at {hide_secrets(self._uri)}"
        self._report = report
        self._heard = 0
        self._ended: str | None = None
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
            self.problem = _find_reason(error)

    def _await_the_first_step(self) -> None:
        # Importing MLflow takes seconds of CPU time, which the compilation of the first step needs first.
        self._wake.wait()
        patient_until = time.monotonic() + PATIENCE
        while self._heard < 2 and not self._closing.is_set() and (left := patient_until - time.monotonic()) > 0:
            self._wake.clear()
            if self._heard < 2 and not self._closing.is_set():
                self._wake.wait(left)

    def _follow(self) -> bool:
        """Send the journal as it grows, and return whether everything was sent."""
        link: Link | None = None
        system: System | None = None
        pause = FIRST_PAUSE
        while not self._abandoned.is_set():
            closing = self._closing.is_set()  # checked before reading, so that the last reading misses nothing
            self._wake.clear()
            try:
                system = system or _make_system(self.directory)
                if system and (closing or system.is_due()):
                    system.sample()
                link = link or self._attach()
                if link and not link.is_current():
                    link.abandon()
                    return True
                if link:
                    self._deliver(link, system)
                if closing and not self._abandoned.is_set():
                    return self._finish(link)
                self.problem, pause = None, FIRST_PAUSE
                self._closing.wait(PERIOD)
                self._wake.wait(LOOK)
            except Exception as error:
                hopeless = _is_hopeless(error)
                self._complain(_find_reason(error), "does not accept the run" if hopeless else "does not answer")
                if closing and hopeless:
                    return False
                link = None
                (self._abandoned if closing else self._closing).wait(pause)
                pause = FIRST_PAUSE if closing else min(2 * pause, LONGEST_PAUSE)
        return False

    def _attach(self) -> "Link | None":
        from gnflow.track.link import Link

        return Link.attach(self.directory, self._uri, running=True)

    def _deliver(self, link: "Link", system: "System | None") -> None:
        while not self._abandoned.is_set() and link.advance():
            pass
        if system and system.waiting:
            link.send(system.waiting)
            system.waiting.clear()
        link.upload_new()

    def _finish(self, link: "Link | None") -> bool:
        if link and (problem := finish(link, self._ended or description.read_status(self.directory, "FINISHED"))):
            self._tell(f"{self._shown} has the run, but not all of its files ({_find_reason(problem)}).")
        return True

    def _complain(self, reason: str, what: str) -> None:
        if self.problem is None and not self._closing.is_set():
            self._tell(f"{self._shown} {what} ({reason}); it gets everything as soon as it does.")
        self.problem = reason


def finish(link: "Link", status: str) -> Exception | None:
    """Store the files of the run, its status and its weights. Return errors of storing."""
    problem = link.upload()
    link.finish(status, tail.read_span(link.directory)[1])
    return link.upload_model() or problem


def replay(directory: Path, workspace: Workspace | None = None) -> str:
    """Send everything that MLflow lacks of a run directory. Return the id of the MLflow run.

    Without the file `mlflow.json` in the directory everything is sent again, which changes nothing that MLflow has.
    Raises EnvironmentProblem if there is nothing to mirror, or no store.
    """
    location.check_available()
    location.settle_environment()
    from gnflow.track.link import Link

    uri = location.find_tracking_uri(workspace or Workspace.find_for_run(directory))
    try:
        link = Link.attach(directory, uri, running=False)
        while link and link.advance():
            pass
        problem = finish(link, description.read_status(directory, "KILLED")) if link else None
        if problem is not None:
            raise problem
    except EnvironmentProblem as problem:
        raise EnvironmentProblem(f"{directory} cannot be mirrored: {problem}") from problem
    except Exception as error:
        kind = StoreAway if any(isinstance(cause, AWAY) for cause in walk_causes(error)) else EnvironmentProblem
        raise kind(f"MLflow at {hide_secrets(uri)} did not accept {directory}: {_find_reason(error)}") from error
    if link is None:
        raise EnvironmentProblem(f"There is nothing to mirror: {directory / JOURNAL} has no record yet.")
    return link.run_id


def _make_system(directory: Path) -> "System | None":
    from gnflow.track.system import System

    return System(tail.read_span(directory)[0]) if read_first_line(directory / JOURNAL) else None


def _is_hopeless(error: Exception) -> bool:
    try:
        from gnflow.track import store  # if MLflow cannot be imported, waiting does not help either
    except Exception:  # `_follow` tells the reason, which is that of `error`.
        return True
    return store.is_hopeless(error)


def _find_reason(error: Exception) -> str:
    """Return the innermost error of the operating system or, if there is none, the first line of the error."""
    found = ""
    for cause in walk_causes(error):
        if isinstance(cause, OSError):
            found = cause.strerror or str(cause)
    found = found or (str(error).strip() or type(error).__name__).splitlines()[0]
    return hide_secrets(found)[:LONGEST_REASON].rstrip(": .")
