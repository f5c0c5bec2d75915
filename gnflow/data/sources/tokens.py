"""Ready token ids: one-dimensional integer `.npy` arrays."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib.format import open_memmap
from numpy.typing import NDArray

from gnflow.data.sources.corpus import Json, count_kept
from gnflow.data.sources.opened import Ready
from gnflow.data.sources.paths import find_existing
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
    """Return size and digest of the files. Raises DataError if both parts are the same."""
    files = [path for path in (_find_train(source, root), _find_held_out(source, root)) if path]
    found = [sha256(path) for path in files]
    if len(set(found)) < len(found):
        raise DataError(
            f"data.source: `{source.train}` and `{source.held_out}` have the same content\n"
            "name other tokens to hold out, or omit `held_out`, and the last part of `train` is held out"
        )
    return [{"bytes": path.stat().st_size, "sha256": digest} for path, digest in zip(files, found, strict=True)]


def read_train(source: Tokens, root: Path) -> Iterator[NDArray[np.uint32]]:
    """Read the ids to train on, in chunks. Raises DataError."""
    ids = _open(_find_train(source, root))
    last = len(ids) if source.held_out else count_kept(len(ids), source.held_out_fraction)
    return _check(ids, 0, last, _find_train(source, root), source.vocabulary)


def read_held_out(source: Tokens, root: Path) -> Iterator[NDArray[np.uint32]]:
    """Read the ids to evaluate on, in chunks. Raises DataError."""
    path = _find_held_out(source, root) or _find_train(source, root)
    ids = _open(path)
    first = 0 if source.held_out else count_kept(len(ids), source.held_out_fraction)
    return _check(ids, first, len(ids), path, source.vocabulary)


def _find_train(source: Tokens, root: Path) -> Path:
    return find_existing(source.train, root, "data.source.train")


def _find_held_out(source: Tokens, root: Path) -> Path | None:
    return find_existing(source.held_out, root, "data.source.held_out") if source.held_out else None


def _open(path: Path) -> NDArray[Any]:
    try:
        ids = open_memmap(path, mode="r")
    except (ValueError, OSError) as error:
        raise DataError(
            f"{path} is not a complete .npy file of numbers: {error}\nwrite it with numpy.save(path, ids)"
        ) from None
    if ids.ndim != 1 or ids.dtype.kind not in "iu":
        raise DataError(f"{path} holds {ids.dtype} of shape {ids.shape}; expected a one-dimensional array of integers")
    return ids


def _check(ids: NDArray[Any], first: int, last: int, path: Path, vocabulary: int) -> Iterator[NDArray[np.uint32]]:
    for start in range(first, last, CHUNK):
        chunk = np.asarray(ids[start : min(start + CHUNK, last)])
        beyond = np.flatnonzero((chunk < 0) | (chunk >= vocabulary))
        if len(beyond):
            place = int(beyond[0])
            raise DataError(
                f"{path}: token {start + place} is {chunk[place]}; expected ids from 0 to {vocabulary - 1}\n"
                "raise data.source.vocabulary, or repair the file"
            )
        yield chunk.astype(np.uint32)
