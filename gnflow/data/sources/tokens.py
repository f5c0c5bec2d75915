"""Ready token ids: one-dimensional integer `.npy` arrays, or `.bin` shards of llm.c."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib.format import open_memmap
from numpy.typing import NDArray

from gnflow.data.sources import llm_c
from gnflow.data.sources.corpus import Json, count_kept
from gnflow.data.sources.named import Named, compute_digests, find_files
from gnflow.data.sources.opened import Ready
from gnflow.errors import DataError
from gnflow.spec.data import Tokens

CHUNK = 1 << 22


def open_ids(source: Tokens, root: Path) -> Ready:
    """Open a source of ready tokens; its spec names this function as its factory."""
    return Ready(
        lambda sha256: identify(source, root, sha256),
        lambda: read_train(source, root),
        lambda: read_held_out(source, root),
    )


def identify(source: Tokens, root: Path, sha256: Callable[[Path], str]) -> Json:
    """Return size and digest of the files. Raises DataError if a file to train on has the content of a held-out one."""
    files = _find_files(source, root)
    digest = compute_digests(files, root, sha256)
    train, held_out = ([_describe(path, digest[path]) for path in part] for part in files)
    # One file for each part: the form that prepared data had when there could be no more.
    return [*train, *held_out] if len(train) == 1 >= len(held_out) else {"train": train, "held_out": held_out}


def read_train(source: Tokens, root: Path) -> Iterator[NDArray[np.uint32]]:
    """Read the ids to train on, in chunks. Raises DataError."""
    files = _find_files(source, root)
    arrays = [(path, _open(path)) for path in files.train]
    count = sum(len(ids) for _, ids in arrays)
    last = count if files.held_out else count_kept(count, source.held_out_fraction)
    return _read(arrays, 0, last, source.vocabulary)


def read_held_out(source: Tokens, root: Path) -> Iterator[NDArray[np.uint32]]:
    """Read the ids to evaluate on, in chunks. Raises DataError."""
    files = _find_files(source, root)
    arrays = [(path, _open(path)) for path in files.held_out or files.train]
    count = sum(len(ids) for _, ids in arrays)
    first = 0 if files.held_out else count_kept(count, source.held_out_fraction)
    return _read(arrays, first, count, source.vocabulary)


def _find_files(source: Tokens, root: Path) -> Named:
    return find_files(source.train, source.held_out or (), root, "data.source.train")


def _describe(path: Path, digest: str) -> Json:
    return {"bytes": path.stat().st_size, "sha256": digest}


def _open(path: Path) -> NDArray[Any]:
    if path.suffix == llm_c.ENDING:
        return llm_c.map_shard(path)
    try:
        ids = open_memmap(path, mode="r")
    except (ValueError, OSError) as error:
        raise DataError(
            f"{path} is not a complete .npy file of numbers: {error}\nwrite it with numpy.save(path, ids)"
        ) from None
    if ids.ndim != 1 or ids.dtype.kind not in "iu":
        raise DataError(f"{path} holds {ids.dtype} of shape {ids.shape}; expected a one-dimensional array of integers")
    return ids


def _read(
    arrays: list[tuple[Path, NDArray[Any]]], first: int, last: int, vocabulary: int
) -> Iterator[NDArray[np.uint32]]:
    """Read the ids from `first` to `last` of the arrays laid end to end."""
    for path, ids in arrays:
        yield from _check(ids, max(first, 0), min(last, len(ids)), path, vocabulary)
        first, last = first - len(ids), last - len(ids)


def _check(ids: NDArray[Any], first: int, last: int, path: Path, vocabulary: int) -> Iterator[NDArray[np.uint32]]:
    for start in range(first, last, CHUNK):
        chunk = np.asarray(ids[start : min(start + CHUNK, last)])
        beyond = np.flatnonzero((chunk < 0) | (chunk >= vocabulary))
        if len(beyond):
            place = int(beyond[0])
            byte = f" (byte {llm_c.find_byte(start + place)})" if path.suffix == llm_c.ENDING else ""
            raise DataError(
                f"{path}: token {start + place}{byte} is {chunk[place]}; expected ids from 0 to {vocabulary - 1}\n"
                "raise data.source.vocabulary, or repair the file"
            )
        yield chunk.astype(np.uint32)
