"""Ctrl-C and SIGTERM: finish the step, save, leave. A second signal stops the process at once.

Where that takes longer than GNFLOW_STOP_SECONDS, the process leaves without: whoever sent the signal would soon kill
it, and the last checkpoint is as good after one as after the other.
"""

import math
import os
import signal
import threading
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Self

from gnflow.errors import EnvironmentProblem, GnflowError, Interrupted, Preempted

VARIABLE, DEFAULT = "GNFLOW_STOP_SECONDS", "25"  # Slurm, Kubernetes and torchrun kill after 30
STOPPING = (signal.SIGINT, signal.SIGTERM)


class Stop:
    """Whether this process was told to stop. Outside the main thread, where Python has no signals, it never is."""

    def __init__(self, notify: Callable[[str], None]) -> None:
        self.patient = False
        """While there is a step to finish and a state to save, the first signal waits for both."""
        self.received: signal.Signals | None = None
        self._notify = notify
        self._before: dict[signal.Signals, object] = {}
        self._told, self._left = threading.Event(), threading.Event()
        self._seconds = deadline()

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            # Begun now, since a handler may interrupt what begins other threads.
            threading.Thread(target=self._watch, name="gnflow-deadline", daemon=True).start()
            self._before = {number: signal.signal(number, self._handle) for number in STOPPING}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._left.set()
        self._told.set()
        for number, handler in self._before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]  # what signal.signal returned
        if self.received and isinstance(error, KeyboardInterrupt):
            raise self.error("stopped before the first step; the same command begins again") from None

    def error(self, message: str) -> GnflowError:
        """What to raise: the two signals have exit codes of their own."""
        return Interrupted(message) if self.received is signal.SIGINT else Preempted(message)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        self.received = signal.Signals(number)
        if not self.patient:
            raise KeyboardInterrupt  # our own errors are Exceptions, which a compiler at work would catch
        for each in STOPPING:
            signal.signal(each, signal.SIG_DFL)  # the kernel ends the process, even inside a long computation
        self._told.set()
        self._notify(f"finishing this step and saving, for at most {self._seconds:g} s; once more to stop at once")

    def _watch(self) -> None:
        self._told.wait()
        if not self._left.wait(min(self._seconds, threading.TIMEOUT_MAX)):
            message = (
                f"stopped within a step or its saving, {self._seconds:g} s after the signal "
                f"({VARIABLE} may allow more); the same command resumes from the last checkpoint\n"
            )
            os.write(2, message.encode())
            os._exit(self.error(message).exit_code)


def deadline() -> float:
    """Seconds from the first signal to the end of the process. Raises EnvironmentProblem."""
    text = os.environ.get(VARIABLE, DEFAULT)
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not seconds > 0:
        raise EnvironmentProblem(f"{VARIABLE}={text}: expected a number of seconds above 0")
    return seconds
