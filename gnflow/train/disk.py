"""Writing so that a file is whole or absent, whatever kills the process."""

import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError

from gnflow import faults
from gnflow.errors import DiskProblem


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turns a failed write into DiskProblem, with the name of what could not be written."""
    try:
        yield
    except OSError as error:
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
