"""Signals: on the first, finish the step, save and exit; on a second, stop the process at once.

Slurm (`--signal=USR1@60`), LSF, Grid Engine and OAR warn with SIGUSR1, SIGUSR2 or SIGXCPU; a session that is closed
sends SIGHUP. These four signals keep a handling that is already set: `nohup` ignores SIGHUP, and a
program that calls `gnflow.run` may have a handler of its own.

If finishing the step and saving takes longer than GNFLOW_STOP_SECONDS, the process exits without saving: the sender of
the signal would soon kill it anyway, and the last checkpoint stays good in either case.
"""

import math
import os
import signal
import threading
from collections.abc import Callable, Iterable
from contextlib import suppress
from types import FrameType, TracebackType
from typing import Self

from gnflow.errors import EnvironmentProblem, GnflowError, Interrupted, Preempted

VARIABLE, DEFAULT = "GNFLOW_STOP_SECONDS", "25"  # seconds; Slurm, Kubernetes and torchrun kill after 30
ALWAYS = (signal.SIGINT, signal.SIGTERM)
UNLESS_DECIDED = (signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2, signal.SIGXCPU)
# A shell and the kernel may both send SIGHUP, and the kernel sends SIGXCPU every second.
REPEATED = (signal.SIGHUP, signal.SIGXCPU)


class Stop:
    """A request to stop this process. There is none outside the main thread, where Python has no signals."""

    def __init__(self, notify: Callable[[str], None]) -> None:
        self.patient = False
        """Return whether the first signal waits until a step is finished and its state saved."""
        self.received: signal.Signals | None = None
        self._notify = notify
        self._before: dict[signal.Signals, object] = {}
        self._told, self._left = threading.Event(), threading.Event()
        self._seconds = read_deadline()

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            # The thread starts now, because a signal handler may interrupt code that is starting a thread.
            threading.Thread(target=self._watch, name="gnflow-deadline", daemon=True).start()
            self._before = {number: signal.signal(number, self._handle) for number in list_signals()}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._left.set()
        self._told.set()
        for number, handler in self._before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]  # what signal.signal returned
        if self.received and isinstance(error, KeyboardInterrupt):
            raise self.make_error("stopped before the first step; the same command begins again") from None
        if self.received and isinstance(error, Exception) and not isinstance(error, GnflowError):
            # A running compiler may have got the signal as well.
            reason = f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}"
            raise self.make_error(f"stopped within a step ({reason}); the same command resumes") from error

    def make_error(self, message: str) -> GnflowError:
        """Return the error to raise. Ctrl-C has an exit code of its own."""
        return Interrupted(message) if self.received is signal.SIGINT else Preempted(message)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        self.received = signal.Signals(number)
        if not self.patient:
            raise KeyboardInterrupt  # gnflow's own errors are Exceptions, which a running compiler would catch
        for each in self._before:
            # Unless the signal is ignored, the kernel then ends the process, even inside a long computation.
            signal.signal(each, signal.SIG_IGN if each in REPEATED else signal.SIG_DFL)
        self._told.set()
        with suppress(Exception):  # the signal may have arrived while something else was being printed
            self._notify(f"finishing this step and saving, for at most {self._seconds:g} s; once more to stop at once")

    def _watch(self) -> None:
        self._told.wait()
        if not self._left.wait(min(self._seconds, threading.TIMEOUT_MAX)):
            message = (
                f"stopped within a step or its saving, {self._seconds:g} s after the signal "
                f"({VARIABLE} may allow more); the same command resumes from the last checkpoint\n"
            )
            with suppress(OSError):
                os.write(2, message.encode())
            os._exit(self.make_error(message).exit_code)


def list_signals() -> Iterable[signal.Signals]:
    """Return the signals that stop this process."""
    return (*ALWAYS, *(number for number in UNLESS_DECIDED if signal.getsignal(number) is signal.SIG_DFL))


def read_deadline() -> float:
    """Return the seconds from the first signal to the end of the process. Raises EnvironmentProblem."""
    text = os.environ.get(VARIABLE, DEFAULT)
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not seconds > 0:
        raise EnvironmentProblem(f"{VARIABLE} is `{text}`; expected a number of seconds above 0")
    return seconds
