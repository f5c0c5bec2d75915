"""Writing so that a file is whole or absent, whatever kills the process; and not into a directory that is gone."""

import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from safetensors import SafetensorError

from gnflow import faults
from gnflow.errors import DiskProblem


class Gone(DiskProblem):
    """The directory that is written to was removed, emptied, replaced or moved."""

    def __init__(self, message: str, moved: bool) -> None:
        super().__init__(message)
        self.moved = moved
        """Whether what was in it is still there, elsewhere."""


_anchors: dict[Path, int] = {}
"""Files that are open while their directories are at work, with their descriptors."""


def anchor(file: Path, descriptor: int) -> None:
    """From now on nothing is written to the directory of an open file unless it is still the file of that name."""
    _anchors[file] = descriptor


def release(file: Path) -> None:
    """Ends what `anchor` began."""
    _anchors.pop(file, None)


def require_there(path: Path) -> None:
    """Raises Gone when `path` lies in an anchored directory that is no longer there."""
    for file, descriptor in tuple(_anchors.items()):
        if file.parent in (path, *path.parents) and not _names(file, descriptor):
            fate, moved = _fate(file, descriptor)
            raise Gone(f"{file.parent} {fate} while this process was at work in it", moved)


def _names(file: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(file.stat(), os.fstat(descriptor))
    except OSError:
        return False


def _fate(file: Path, descriptor: int) -> tuple[str, bool]:
    """What has become of a directory, and whether its content still exists."""
    if os.fstat(descriptor).st_nlink == 0:
        there = "holds another run" if file.exists() else "was emptied" if file.parent.exists() else "was removed"
        return there, False
    with suppress(OSError):  # only Linux can tell
        return f"was moved to {Path(f'/proc/self/fd/{descriptor}').readlink().parent}", True
    return "was moved", True


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turns a failed write into DiskProblem, with the name of what could not be written. Raises Gone before it."""
    require_there(path)
    try:
        yield
    except OSError as error:
        require_there(path)  # it may have gone in the meantime
        raise DiskProblem(f"cannot write {path}: {error.strerror or error}") from error
    except SafetensorError as error:
        raise DiskProblem(f"cannot write {path}: {error}") from error


def write(path: Path, content: bytes) -> None:
    """Replaces `path` in one move: readers see the old content or the new. Raises DiskProblem."""
    partial, name = path.with_name(f".{path.name}.partial"), path.stem
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        faults.at(f"{name}.before_write")
        try:
            with partial.open("wb") as file:
                faults.at(f"{name}.in_write", lambda: os.write(file.fileno(), content[: len(content) // 2]))
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            faults.at(f"{name}.after_write")
            partial.replace(path)
            faults.at(f"{name}.after_rename")
        except BaseException:
            partial.unlink(missing_ok=True)
            raise
        sync(path.parent)


def write_json(path: Path, value: object) -> None:
    """The same, as indented JSON. Raises DiskProblem, and ValueError for a number that JSON does not have."""
    write(path, (json.dumps(value, indent=2, allow_nan=False) + "\n").encode())


def sync(path: Path) -> None:
    """Waits until a file, or the names in a directory, are on the disk itself."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sha256(path: Path) -> str:
    """Digest of a file's content, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
