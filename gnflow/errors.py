"""Errors that users can act on, each with the exit code that scripts rely on."""

from collections.abc import Iterator


class GnflowError(Exception):
    """An error that the user can act on. It is shown as one message, without a traceback."""

    exit_code = 1


class SpecError(GnflowError):
    """A spec, or a value that it asks for, is not valid."""

    exit_code = 3


class DataError(GnflowError):
    """A corpus, shard or tokenizer is missing, is damaged or does not fit."""

    exit_code = 4


class Diverged(GnflowError):
    """A loss is no longer finite."""

    exit_code = 5


class Preempted(GnflowError):
    """SIGTERM or a scheduler stopped the run, which can be resumed."""

    exit_code = 6


class EnvironmentProblem(GnflowError):
    """A package, compiler, device or server is missing."""

    exit_code = 7


class DiskProblem(GnflowError):
    """A file cannot be written, or a written file is damaged."""

    exit_code = 8


class Interrupted(GnflowError):
    """The user interrupted the run (Ctrl-C), which can be resumed."""

    exit_code = 130


_OUT_OF_MEMORY = ("not enough memory", "can't allocate memory", "out of memory", "unable to allocate")


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an error or one of its causes says that memory ran out, be it torch's, numpy's or Python's."""
    for cause in walk_causes(error):
        if isinstance(cause, MemoryError) or type(cause).__name__ == "OutOfMemoryError":
            return True
        if isinstance(cause, RuntimeError) and any(words in str(cause).lower() for words in _OUT_OF_MEMORY):
            return True
    return False


def walk_causes(error: BaseException) -> Iterator[BaseException]:
    """Yield an error and then its causes, each once: the errors that it was raised from or while handling."""
    seen: list[BaseException] = []
    cause: BaseException | None = error
    while cause is not None and cause not in seen:
        yield cause
        seen.append(cause)
        cause = cause.__cause__ or cause.__context__
