"""Write files so that they are complete or absent if the process is killed, and never into a directory that is gone."""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from safetensors import SafetensorError

from gnflow import faults
from gnflow.errors import DiskProblem


class Gone(DiskProblem):
    """An error that means that the directory to write to was removed, emptied, replaced or moved."""

    def __init__(self, message: str, moved: bool) -> None:
        super().__init__(message)
        self.moved = moved
        """Return whether its content still exists in another place."""


_anchors: dict[Path, int] = {}
"""Open files that guard their directories while these are in use, with their descriptors."""


def anchor(file: Path, descriptor: int) -> None:
    """Guard the directory of this open file: writing to it is refused once it no longer holds this very file."""
    _anchors[file] = descriptor


def release(file: Path) -> None:
    """End the guard that `anchor` began."""
    _anchors.pop(file, None)


def require_there(path: Path) -> None:
    """Raise Gone if `path` lies in an anchored directory that no longer exists."""
    for file, descriptor in tuple(_anchors.items()):
        if file.parent in (path, *path.parents) and not _is_same_file(file, descriptor):
            fate, moved = _describe_fate(file, descriptor)
            raise Gone(f"{file.parent} {fate} while this process was at work in it", moved)


def _is_same_file(file: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(file.stat(), os.fstat(descriptor))
    except OSError:
        return False


def _describe_fate(file: Path, descriptor: int) -> tuple[str, bool]:
    """Say what happened to a directory, and whether its content still exists."""
    if os.fstat(descriptor).st_nlink == 0:
        there = "holds another run" if file.exists() else "was emptied" if file.parent.exists() else "was removed"
        return there, False
    with suppress(OSError):  # only Linux reports this
        return f"was moved to {Path(f'/proc/self/fd/{descriptor}').readlink().parent}", True
    return "was moved", True


@contextmanager
def guard_write(path: Path) -> Iterator[None]:
    """Turn a failed write into DiskProblem with the name of the file. Raises Gone first if the directory is gone."""
    require_there(path)
    try:
        yield
    except OSError as error:
        require_there(path)  # the directory may have disappeared in the meantime
        raise DiskProblem(f"{path} cannot be written: {error.strerror or error}") from error
    except SafetensorError as error:
        raise DiskProblem(f"{path} cannot be written: {error}") from error


def write(path: Path, content: bytes) -> None:
    """Replace `path` in one move, so that readers see the old content or the new. Raises DiskProblem."""
    partial, name = path.with_name(f".{path.name}.partial"), path.stem
    with guard_write(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        faults.pass_point(f"{name}.before_write")
        try:
            with partial.open("wb") as file:
                faults.pass_point(f"{name}.in_write", lambda: os.write(file.fileno(), content[: len(content) // 2]))
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            faults.pass_point(f"{name}.after_write")
            partial.replace(path)
            faults.pass_point(f"{name}.after_rename")
        except BaseException:
            partial.unlink(missing_ok=True)
            raise
        sync(path.parent)


def write_json(path: Path, value: object) -> None:
    """Write indented JSON like `write`. Raises DiskProblem, and ValueError for a number that JSON does not have."""
    write(path, (json.dumps(value, indent=2, allow_nan=False) + "\n").encode())


def sync(path: Path) -> None:
    """Wait until a file, or the names in a directory, are on the disk itself."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
