"""Pack whole samples side by side into rows of one length."""

from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from gnflow.data.tokenizers import Ids


class Sequence(NamedTuple):
    """Ids, with 1 + the number of the patch that is read at each placeholder, and 0 elsewhere."""

    ids: Ids
    patches: NDArray[np.uint32]


def make_plain(ids: Ids) -> Sequence:
    """Make a sequence that reads no patch."""
    return Sequence(ids, np.zeros_like(ids))


def pack(sequences: Iterable[Sequence], length: int, pad: int) -> Iterator[Sequence]:
    """Pack sequences in order into rows of `length` ids: as many as fit one after the other, then padding."""
    row: list[Sequence] = []
    used = 0
    for sequence in sequences:
        if used + len(sequence.ids) > length and row:
            yield _fill(row, length, pad)
            row, used = [], 0
        row.append(sequence)
        used += len(sequence.ids)
    if row:
        yield _fill(row, length, pad)


def _fill(row: list[Sequence], length: int, pad: int) -> Sequence:
    ids = np.full(length, pad, dtype=np.uint32)
    patches = np.zeros(length, dtype=np.uint32)
    start = 0
    for sequence in row:
        place = slice(start, start + len(sequence.ids))
        ids[place], patches[place] = sequence
        start = place.stop
    return Sequence(ids, patches)
