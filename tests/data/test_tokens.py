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
