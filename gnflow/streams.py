"""Standard output and error, and the end of a verb that can no longer write to them.

A verb that leaves files behind (a run, shards, a report) goes on in silence. A verb that only reads ends. It ends in
silence if the reader has left, as in `gnflow list | head -1`, and with exit code 8 if the output cannot be written.
"""

import errno
import io
import os
import select
import sys
import traceback
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from gnflow.errors import DiskProblem, EnvironmentProblem, GnflowError, Interrupted, is_out_of_memory
from gnflow.secrets import hide_secrets

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

NAMES = {1: "standard output", 2: "standard error"}


class Stream(io.FileIO):
    """A standard stream that is pointed at the null device when it first fails."""

    def __init__(self, descriptor: int, needed: bool) -> None:
        super().__init__(descriptor, "w", closefd=False)
        self.needed = needed
        """Whether a failure ends the verb."""

    def write(self, content: "ReadableBuffer") -> int:
        """Write as many bytes as fit and return their number.

        Raises BrokenPipeError or DiskProblem if the stream is needed and cannot be written to.
        """
        try:
            while (written := super().write(content)) is None:  # the other side has made the pipe non-blocking
                select.select([], [self], [])
        except OSError as error:
            # What is buffered above goes there as well, so that the interpreter has nothing to complain of at its end.
            _discard(self.fileno())
            if not self.needed:
                return memoryview(content).nbytes
            if error.errno == errno.EPIPE:
                raise
            raise DiskProblem(f"cannot write to {NAMES[self.fileno()]}: {error.strerror}") from None
        return written


def settle() -> None:
    """Replace the standard streams, and open the null device for those that the process was started without."""
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:  # closed: the next file to be opened, such as a journal, would be taken for this stream
            _discard(descriptor)
    sys.stdout = _wrap(sys.stdout, 1, needed=True)
    sys.stderr = _wrap(sys.stderr, 2, needed=False)


def tolerate_failures() -> None:
    """Let the current verb go on when its output cannot be written."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(raw := _find_raw(stream), Stream):
            raw.needed = False


def flush() -> None:
    """Write all buffered output. Raises the errors of `Stream.write`."""
    for stream in (sys.stdout, sys.stderr):
        stream.flush()


def _wrap(stream: TextIO | None, descriptor: int, *, needed: bool) -> TextIO:
    """Return a stream that fails like `Stream` and is otherwise as before. A stream that a program has set stays."""
    if stream is None:
        return io.TextIOWrapper(io.BufferedWriter(Stream(descriptor, needed)), errors="backslashreplace")
    if not isinstance(stream, io.TextIOWrapper) or _find_descriptor(stream) != descriptor:
        return stream
    with suppress(OSError):
        stream.flush()
    raw = Stream(descriptor, needed)
    return io.TextIOWrapper(
        io.BufferedWriter(raw),
        encoding=stream.encoding,
        errors="backslashreplace",
        line_buffering=stream.line_buffering or stream.write_through,
    )


def _find_descriptor(stream: TextIO) -> int | None:
    with suppress(OSError, ValueError):
        return stream.fileno()
    return None


def _find_raw(stream: TextIO) -> object:
    return getattr(getattr(stream, "buffer", None), "raw", None)


def _discard(descriptor: int) -> None:
    null = os.open(os.devnull, os.O_RDWR)
    if null == descriptor:
        os.set_inheritable(null, True)
    else:
        os.dup2(null, descriptor)
        os.close(null)


def redirect(path: Path) -> None:
    """Send what this process prints from now on to the end of a file."""
    with suppress(OSError):
        flush()
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    for standard in NAMES:
        os.dup2(descriptor, standard)
    os.close(descriptor)


def explain(error: BaseException) -> tuple[int, str]:
    """Return the exit code for an error that ended a verb, and what to tell the user."""
    if isinstance(error, GnflowError):
        return error.exit_code, hide_secrets(str(error))
    if isinstance(error, BrokenPipeError):  # the reader has left, as `head` does
        return 1, ""
    if isinstance(error, KeyboardInterrupt):
        return Interrupted.exit_code, ""
    if is_out_of_memory(error):
        more = "This needs more memory than there is; `gnflow plan SPEC` says how much, and what would need less."
        return EnvironmentProblem.exit_code, more
    cause = error.__context__
    if isinstance(error, RuntimeError) and isinstance(cause, OSError) and cause.errno == errno.ELOOP:
        return EnvironmentProblem.exit_code, f"{cause.filename}: this symbolic link leads back to itself"
    trace = "".join(traceback.format_exception(error))
    return 1, hide_secrets(trace) + "\nThis is a fault in gnflow. Please report it, with the lines above and the spec."
