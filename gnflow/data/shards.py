"""Tokens on disk: `.npy` files and a manifest of their SHA-256, in a directory that is whole or absent."""

import json
import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from gnflow import faults
from gnflow.data.digests import hash_file
from gnflow.data.sources.corpus import Json
from gnflow.locks import lock_file

MANIFEST = "manifest.json"
WRITTEN = ("|u1", "<u2", "<u4")


Append = Callable[[NDArray[np.integer]], None]


def write_ids(path: Path, vocabulary: int, parts: Iterable[tuple[NDArray[np.uint32], int]]) -> tuple[int, int]:
    """Write ids in the narrowest type that holds the vocabulary. Return the numbers of ids and of text bytes."""
    tokens = size = 0
    with grow(path, choose_dtype(vocabulary)) as append:
        for ids, text in parts:
            append(ids)
            tokens += len(ids)
            size += text
    return tokens, size


def choose_dtype(vocabulary: int) -> str:
    """Return the narrowest type that holds ids below `vocabulary`."""
    return "<u2" if vocabulary <= 1 << 16 else "<u4"


@contextmanager
def grow(path: Path, dtype: str, tail: tuple[int, ...] = ()) -> Iterator[Append]:
    """Write a `.npy` file of shape [number of appended rows, *tail]."""
    length = 0

    def append(values: NDArray[np.integer]) -> None:
        nonlocal length
        content = values.astype(dtype).tobytes()
        faults.pass_point("shards.in_write", lambda: os.write(file.fileno(), content[: len(content) // 2]))
        file.write(content)
        length += len(values)

    with path.open("wb") as file:
        _write_header(file, dtype, (0, *tail))
        yield append
        # numpy pads the header so that a longer first axis takes no more room.
        file.seek(0)
        _write_header(file, dtype, (length, *tail))
        _flush(file)
    faults.pass_point("shards.after_file")


def map_shard(path: Path, axes: int) -> NDArray[Any]:
    """Map a file that `grow` has written into memory. Raises OSError, and ValueError for another file."""
    try:
        found = np.lib.format.open_memmap(path, mode="r")
    except OSError:
        raise
    except Exception as error:  # reading a header, numpy lets through whatever Python's tokenizer and parser raise
        raise ValueError(f"it is no .npy file: {error}") from None
    if found.ndim != axes or found.dtype.str not in WRITTEN or not found.flags.c_contiguous:
        raise ValueError(f"it holds {found.dtype.str} with {found.ndim} axes; expected unsigned integers with {axes}")
    return found


def write_text(path: Path, text: str) -> None:
    """Write a file, down to the disk."""
    with path.open("w", encoding="utf-8") as file:
        file.write(text)
        _flush(file)


def make(directory: Path, write: Callable[[Path], dict[str, Json]], waiting: Callable[[], None]) -> None:
    """Fill `directory` by `write`, which returns the manifest, unless another process has done so meanwhile."""
    directory.parent.mkdir(parents=True, exist_ok=True)
    with lock_file(directory.parent / f".{directory.name}.lock", waiting):
        if directory.exists():
            return
        partial = directory.parent / f".{directory.name}.partial"
        if partial.exists():
            shutil.rmtree(partial)
        partial.mkdir()
        faults.pass_point("shards.before_write")
        try:
            manifest = write(partial)
            manifest["files"] = {path.name: _describe_file(path) for path in sorted(partial.iterdir())}
            write_text(partial / MANIFEST, json.dumps(manifest, indent=2, sort_keys=True) + "\n")
            _flush_names(partial)
            faults.pass_point("shards.after_write")
            partial.rename(directory)
            faults.pass_point("shards.after_rename")
            _flush_names(directory.parent)
        except BaseException:
            shutil.rmtree(partial, ignore_errors=True)
            raise


def _write_header(file: BinaryIO, descr: str, shape: tuple[int, ...]) -> None:
    header = {"descr": descr, "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(file, header)


def _describe_file(path: Path) -> Json:
    return {"bytes": path.stat().st_size, "sha256": hash_file(path)}


def _flush(file: IO[bytes] | IO[str]) -> None:
    file.flush()
    os.fsync(file.fileno())


def _flush_names(directory: Path) -> None:
    handle = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
