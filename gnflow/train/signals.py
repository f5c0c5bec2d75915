"""Ctrl-C and SIGTERM: finish the step, save, leave. A second signal stops the process at once."""

import signal
import threading
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Self

from gnflow.errors import GnflowError, Interrupted, Preempted

STOPPING = (signal.SIGINT, signal.SIGTERM)


class Stop:
    """Whether this process was told to stop. Outside the main thread, where Python has no signals, it never is."""

    def __init__(self, notify: Callable[[str], None]) -> None:
        self.patient = False
        """While there is a step to finish and a state to save, the first signal waits for both."""
        self.received: signal.Signals | None = None
        self._notify = notify
        self._before: dict[signal.Signals, object] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._handle) for number in STOPPING}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
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
        self._notify("finishing this step and saving; once more to stop at once")
