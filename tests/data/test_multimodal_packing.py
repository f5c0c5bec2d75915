from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gnflow.data import shards
from gnflow.data.multimodal.packing import Sequence, make_plain, pack

PAD, LENGTH = 99, 12
LENGTHS = st.lists(st.integers(1, LENGTH), max_size=30)


def sequences(lengths: list[int]) -> list[Sequence]:
    """Each of one id of its own, every second one with patches."""
    return [
        Sequence(np.full(length, place, dtype=np.uint32), np.full(length, place % 2 and place, dtype=np.uint32))
        for place, length in enumerate(lengths)
    ]


@given(LENGTHS)
def test_every_sequence_is_whole_in_one_row_in_order_and_the_rest_is_padding(lengths: list[int]) -> None:
    rows = list(pack(sequences(lengths), LENGTH, PAD))
    found = []
    for ids, patches in rows:
        assert len(ids) == len(patches) == LENGTH
        kept = ids[ids != PAD]
        assert np.array_equal(ids, np.concatenate([kept, np.full(LENGTH - len(kept), PAD)]))
        found += [(int(i), int((ids == i).sum())) for i in dict.fromkeys(kept.tolist())]
        assert np.array_equal(patches, np.where((ids != PAD) & (ids % 2 == 1), ids, 0))
    assert found == list(enumerate(lengths))


@given(LENGTHS)
def test_a_row_ends_only_where_the_next_sequence_does_not_fit(lengths: list[int]) -> None:
    rows = [ids[ids != PAD] for ids, _ in pack(sequences(lengths), LENGTH, PAD)]
    for row, following in pairwise(rows):
        assert len(row) + lengths[int(following[0])] > LENGTH


def test_a_sequence_that_reads_nothing_has_no_patches() -> None:
    assert make_plain(np.arange(5, dtype=np.uint32)).patches.tolist() == [0] * 5


@pytest.mark.parametrize("tail", [(), (3,), (2, 5)])
@pytest.mark.parametrize("dtype", ["|u1", "<u2", "<u4"])
def test_a_file_that_grows_is_the_one_that_numpy_saves(dtype: str, tail: tuple[int, ...], tmp_path: Path) -> None:
    values = np.random.default_rng(0).integers(200, size=(1234, *tail))
    with shards.grow(tmp_path / "grown.npy", dtype, tail) as append:
        for start in range(0, 1234, 100):
            append(values[start : start + 100])
    np.save(tmp_path / "saved.npy", values.astype(dtype))
    assert (tmp_path / "grown.npy").read_bytes() == (tmp_path / "saved.npy").read_bytes()
