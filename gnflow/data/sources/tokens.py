"""Ready token ids: one-dimensional integer `.npy` arrays."""

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from numpy.lib.format import open_memmap
from numpy.typing import NDArray

from gnflow.data.sources.corpus import Json
from gnflow.data.sources.opened import Ready
from gnflow.data.sources.paths import existing
from gnflow.errors import DataError
from gnflow.spec.data import Tokens

CHUNK = 1 << 22


def open_ids(source: Tokens, root: Path) -> Ready:
    """The factory."""
    return Ready(
        lambda sha256: identity(source, root, sha256), lambda: train(source, root), lambda: held_out(source, root)
    )


def identity(source: Tokens, root: Path, sha256: Callable[[Path], str]) -> Json:
    """Size and content of both files."""
    files = existing(source.train, root, "data.source.train"), existing(source.held_out, root, "data.source.held_out")
    return [{"bytes": path.stat().st_size, "sha256": sha256(path)} for path in files]


def train(source: Tokens, root: Path) -> Iterator[NDArray[np.uint32]]:
    """Ids to train on, in chunks. Raises DataError."""
    return _checked(existing(source.train, root, "data.source.train"), source.vocabulary)


def held_out(source: Tokens, root: Path) -> Iterator[NDArray[np.uint32]]:
    """Ids to evaluate on, in chunks. Raises DataError."""
    return _checked(existing(source.held_out, root, "data.source.held_out"), source.vocabulary)


def _checked(path: Path, vocabulary: int) -> Iterator[NDArray[np.uint32]]:
    try:
        ids = open_memmap(path, mode="r")
    except (ValueError, OSError) as error:
        raise DataError(
            f"{path}: not a whole .npy file of numbers: {error}\nwrite it with numpy.save(path, ids)"
        ) from None
    if ids.ndim != 1 or ids.dtype.kind not in "iu":
        raise DataError(f"{path}: {ids.dtype} of shape {ids.shape}; expected a one-dimensional array of integers")
    for start in range(0, len(ids), CHUNK):
        chunk = np.asarray(ids[start : start + CHUNK])
        beyond = np.flatnonzero((chunk < 0) | (chunk >= vocabulary))
        if len(beyond):
            place = int(beyond[0])
            raise DataError(
                f"{path}: token {start + place} is {chunk[place]}; expected ids from 0 to {vocabulary - 1}\n"
                "raise data.source.vocabulary, or repair the file"
            )
        yield chunk.astype(np.uint32)
