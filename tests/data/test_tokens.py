from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from corpora import text
from pydantic import ValidationError

from gnflow.data.dataset import Dataset
from gnflow.data.prepare import prepare
from gnflow.data.sources import tokens as source
from gnflow.errors import DataError
from gnflow.spec.canonical import make_tree
from gnflow.workspace import Workspace

Written = Callable[..., Path]


def ready(workspace: Workspace, vocabulary: int = 100, train: str = "train.npy", context: int = 4) -> Dataset:
    section = {"kind": "tokens", "train": train, "held_out": "held_out.npy", "vocabulary": vocabulary}
    return prepare(text(source=section, context=context), workspace)


@pytest.fixture(autouse=True)
def held_out(workspace: Workspace) -> None:
    np.save(workspace.root / "held_out.npy", np.arange(10, dtype=np.int64))


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int32, np.int64, ">u2"])
@pytest.mark.parametrize("vocabulary", [100, 1 << 16, (1 << 16) + 1])
def test_ready_ids_are_taken_as_they_are(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch, dtype: str, vocabulary: int
) -> None:
    monkeypatch.setattr(source, "CHUNK", 16)
    ids = (np.arange(77) * 13 % 100).astype(dtype)
    np.save(workspace.root / "train.npy", ids)
    found = ready(workspace, vocabulary)
    assert found.train.dtype == (np.uint16 if vocabulary <= 1 << 16 else np.uint32)
    assert found.train.tolist() == ids.tolist()
    assert found.held_out.tolist() == list(range(10))
    assert found.vocabulary == vocabulary
    assert found.bytes_per_token is None


@pytest.mark.parametrize("bad", [100, -1])
def test_an_id_beyond_the_vocabulary_is_named_with_its_place(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch, bad: int
) -> None:
    monkeypatch.setattr(source, "CHUNK", 16)
    ids = np.arange(77) % 100
    ids[53] = ids[60] = bad
    np.save(workspace.root / "train.npy", ids)
    with pytest.raises(DataError, match=rf"train\.npy: token 53 is {bad}; expected ids from 0 to 99"):
        ready(workspace)


@pytest.mark.parametrize(
    ("array", "expected"),
    [
        (np.zeros((3, 4), dtype=np.int64), r"int64 of shape \(3, 4\); expected a one-dimensional array of integers"),
        (np.zeros(30), r"float64 of shape \(30,\); expected"),
        (np.zeros(30, dtype=bool), r"bool of shape \(30,\); expected"),
        (np.array(["a", {}], dtype=object), "not a complete .npy file of numbers"),
    ],
)
def test_an_array_of_another_kind_is_refused(workspace: Workspace, array: np.ndarray, expected: str) -> None:
    np.save(workspace.root / "train.npy", array, allow_pickle=True)
    with pytest.raises(DataError, match=rf"train\.npy .*{expected}"):
        ready(workspace)


@pytest.mark.parametrize("kept", [0, 5, 100, -1])
def test_a_truncated_array_is_named(workspace: Workspace, kept: int) -> None:
    path = workspace.root / "train.npy"
    np.save(path, np.arange(77))
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(DataError, match=rf"{path} is not a complete .npy file"):
        ready(workspace)


def test_a_missing_array_is_named(workspace: Workspace) -> None:
    with pytest.raises(DataError, match=r"data.source.train: there is no file `training.npy`"):
        ready(workspace, train="training.npy")


def test_an_empty_array_is_refused(workspace: Workspace) -> None:
    np.save(workspace.root / "train.npy", np.arange(0))
    with pytest.raises(DataError, match="nothing in the training part"):
        ready(workspace)


def test_arrays_shorter_than_a_row_are_refused_with_their_counts(workspace: Workspace) -> None:
    np.save(workspace.root / "train.npy", np.arange(77))
    assert len(ready(workspace, context=9).held_out) == 10
    with pytest.raises(DataError, match=r"held-out text has 10 tokens.*= 11 \(training: 77, held-out: 10\)"):
        ready(workspace, context=10)
    np.save(workspace.root / "train.npy", np.arange(4))
    with pytest.raises(DataError, match=r"training text has 4 tokens.*= 5 \(training: 4, held-out: 10\)"):
        ready(workspace)


def test_one_file_for_both_parts_is_refused() -> None:
    with pytest.raises(ValidationError, match="`train` and `held_out` are the same file"):
        text(source={"kind": "tokens", "train": "a.npy", "held_out": "./a.npy", "vocabulary": 9})


def test_without_a_held_out_file_the_last_tokens_are_held_out(workspace: Workspace) -> None:
    ids = np.arange(100) % 50
    np.save(workspace.root / "a.npy", ids)
    source = {"kind": "tokens", "train": "a.npy", "vocabulary": 50}
    found = prepare(text(source=source, context=2), workspace)
    assert (found.train[:].tolist(), found.held_out[:].tolist()) == (ids[:95].tolist(), ids[95:].tolist())
    found = prepare(text(source=source | {"held_out_fraction": 0.3}, context=2), workspace)
    assert (len(found.train), len(found.held_out)) == (70, 30)


def shard(ids: np.ndarray, magic: int = 20240520, version: int = 1, tokens: int | None = None) -> bytes:
    """A shard as dev/data/data_common.py of llm.c writes it."""
    header = np.zeros(256, dtype="<i4")
    header[:3] = magic, version, len(ids) if tokens is None else tokens
    return header.tobytes() + ids.astype("<u2").tobytes()


IDS = np.arange(90) * 7 % 100


def test_shards_of_llm_c_are_read_in_the_order_of_their_names(workspace: Workspace, written: Written) -> None:
    for number, part in enumerate(np.split(IDS, [40, 70])):
        written(f"fineweb/train_{number}.bin", shard(part))
    written("fineweb/val.bin", shard(np.arange(9)))
    section = {"kind": "tokens", "train": "fineweb/train_*.bin", "vocabulary": 100}
    found = prepare(text(source={**section, "held_out": ["fineweb/val.bin"]}, context=4), workspace)
    assert (found.train.tolist(), found.held_out.tolist()) == (IDS.tolist(), list(range(9)))
    names = ["fineweb/train_1.bin", "fineweb/train_0.bin"]
    apart = prepare(text(source={**section, "train": names, "held_out_fraction": 0.5}, context=4), workspace)
    assert apart.train.tolist() + apart.held_out.tolist() == [*IDS[40:70], *IDS[:40]]
    assert len(apart.held_out) == 35  # half of both files together


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (shard(IDS, magic=1), r"bad\.bin, byte 0: the magic number is 1, not 20240520: .*\n.* numpy\.fromfile"),
        (shard(IDS, magic=20240801), r"bad\.bin, byte 0: .* a shard for Llama 3, whose ids have four bytes"),
        (shard(IDS, version=7), r"bad\.bin, byte 4: the version is 7, not 1"),
        (
            shard(IDS)[:-3],
            r"bad\.bin, byte 8: the header promises 90 tokens, .* end at byte 1204, .* ends at byte 1201",
        ),
        (shard(IDS)[:700], r"bad\.bin ends at byte 700, inside the header"),
        (b"", r"bad\.bin ends at byte 0, inside the header"),
        (shard(IDS, tokens=-1), r"bad\.bin, byte 8: the header promises -1 tokens"),
        (
            shard(np.array([*IDS[:53], 100, *IDS])),
            r"bad\.bin: token 53 \(byte 1130\) is 100; expected ids from 0 to 99",
        ),
    ],
)
def test_a_bad_shard_is_named_with_its_byte(
    workspace: Workspace, written: Written, content: bytes, problem: str
) -> None:
    written("good.bin", shard(IDS))
    written("bad.bin", content)
    section = {"kind": "tokens", "train": ["good.bin", "bad.bin"], "held_out": "held_out.npy", "vocabulary": 100}
    with pytest.raises(DataError, match=problem):
        prepare(text(source=section, context=4), workspace)


def test_the_order_of_the_files_can_be_kept(workspace: Workspace) -> None:
    np.save(workspace.root / "train.npy", IDS)
    section = {"kind": "tokens", "train": "train.npy", "held_out": "held_out.npy", "vocabulary": 100}
    shuffled = prepare(text(source=section, context=4), workspace)
    kept = prepare(text(source={**section, "order": "sequential"}, context=4), workspace)
    assert kept.directory == shuffled.directory  # the order is not part of the shards
    rows = kept.make_microbatches(3, seed=0)
    assert rows.find_rows(0, 8).ravel().tolist() == [*range(22), 0, 1]
    assert rows.take(0, 1)[0, 1].tolist() == IDS[4:9].tolist()
    assert shuffled.make_microbatches(3, seed=0).find_rows(0, 7).ravel().tolist() != list(range(21))
    # Warm-up steps before the run see rows of their own.
    assert kept.make_microbatches(3, 0, "start").find_rows(0, 7).ravel().tolist() != list(range(21))


def test_one_file_is_written_without_brackets_and_keeps_its_place_among_prepared_data() -> None:
    one = text(source={"kind": "tokens", "train": "a.npy", "vocabulary": 9})
    assert one.source.model_dump(mode="json") == {
        "kind": "tokens", "train": "a.npy", "held_out": None, "vocabulary": 9,
    }  # fmt: skip
    assert one == text(source={"kind": "tokens", "train": ["a.npy"], "vocabulary": 9})
    both = text(source={"kind": "tokens", "train": ["a.npy"], "held_out": "b.npy", "vocabulary": 9})
    assert [make_tree(both.source)[name] for name in ("train", "held_out")] == ["a.npy", "b.npy"]
