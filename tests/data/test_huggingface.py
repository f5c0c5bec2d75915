import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from corpora import documents, lines, text
from hub import serve
from pydantic import ValidationError

from gnflow.data.dataset import Dataset
from gnflow.data.prepare import prepare
from gnflow.errors import DataError, EnvironmentProblem
from gnflow.workspace import Workspace

Written = Callable[..., Path]


@pytest.fixture(autouse=True)
def corpus(written: Written) -> Path:
    written("poems/train.jsonl", lines(*({"text": f"train {number}", "n": number} for number in range(20))))
    return written("poems/validation.jsonl", lines({"text": "v 0", "n": 0}, {"text": "v 1", "n": 1})).parent


def dataset(workspace: Workspace, path: str = "poems", **options: object) -> Dataset:
    datasets = pytest.importorskip("datasets")
    assert datasets.config.HF_HUB_OFFLINE
    source = {"kind": "huggingface", "path": path, **options}
    return prepare(text(source=source, tokenizer="bytes", context=2), workspace)


def test_a_local_directory_gives_its_splits_without_a_network(workspace: Workspace) -> None:
    found = dataset(workspace)
    assert documents(found.train) == [f"train {number}" for number in range(20)]
    assert documents(found.held_out) == ["v 0", "v 1"]
    assert found.directory.name.startswith("poems-bytes-257-")


def test_only_the_first_documents_are_taken_when_asked_for(workspace: Workspace) -> None:
    found = dataset(workspace, documents=3)
    assert documents(found.train) == ["train 0", "train 1", "train 2"]
    assert documents(found.held_out) == ["v 0", "v 1"]


def test_a_split_may_be_a_slice(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    datasets = pytest.importorskip("datasets")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", workspace.root / "cache")
    found = dataset(workspace, split="train[:25%]", held_out="train[75%:]")
    assert documents(found.train) == [f"train {number}" for number in range(5)]
    assert documents(found.held_out) == [f"train {number}" for number in range(15, 20)]


def test_other_content_in_the_directory_is_another_corpus(workspace: Workspace, written: Written) -> None:
    first = dataset(workspace)
    written("poems/validation.jsonl", lines({"text": "other"}))
    second = dataset(workspace)
    assert second.directory != first.directory
    assert documents(second.held_out) == ["other"]


def test_a_missing_column_split_or_configuration_is_named(workspace: Workspace) -> None:
    with pytest.raises(
        DataError, match=r"poems, split train, row 1 has no column `texts`; it has text, n\ndid you mean"
    ):
        dataset(workspace, column="texts")
    with pytest.raises(DataError, match=r"poems, split test: .*Available splits: \['train', 'validation'\]"):
        dataset(workspace, split="test")
    with pytest.raises(DataError, match=r"poems, split train: .*'en' not found"):
        dataset(workspace, name="en")


def test_a_value_that_is_no_string_is_named_with_its_row(workspace: Workspace) -> None:
    with pytest.raises(DataError, match=r"poems, split train, row 1: `n` is int; expected a string"):
        dataset(workspace, column="n")


def test_a_file_that_cannot_be_parsed_is_named_with_its_split(workspace: Workspace, written: Written) -> None:
    written("poems/train.jsonl", lines({"text": "good"}) + "{bad\n")
    with pytest.raises(DataError, match=r"poems, split train: the package datasets failed after row \d+"):
        dataset(workspace)


def test_a_name_that_is_no_directory_cannot_be_had_offline(workspace: Workspace) -> None:
    with pytest.raises(DataError, match=r"nobody/nothing, split train: the package datasets failed after row 0"):
        dataset(workspace, path="nobody/nothing")


def test_a_missing_package_is_named(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    source = {"kind": "huggingface", "path": "poems"}
    with pytest.raises(EnvironmentProblem, match=r"run: pip install 'gnflow\[hf\]'"):
        prepare(text(source=source, tokenizer="bytes", context=2), workspace)


@pytest.mark.parametrize(
    ("split", "held_out"),
    [
        ("train", "train"),
        ("train", "train[-5%:]"),
        ("train[:95%]", "train[90%:]"),
        ("train[:10]", "train[5:]"),
        ("train+validation", "validation"),
        ("all", "validation"),
    ],
)
def test_a_spec_whose_splits_share_rows_is_refused(split: str, held_out: str) -> None:
    with pytest.raises(ValidationError, match=r"shares rows with .* give `held_out_fraction`"):
        text(source={"kind": "huggingface", "path": "poems", "split": split, "held_out": held_out})


def test_slices_that_share_rows_of_this_data_set_are_refused(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    datasets = pytest.importorskip("datasets")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", workspace.root / "cache")
    with pytest.raises(DataError, match=r"`train\[:11\]` .* `train\[50%:\]` to hold out share the rows 10 to 10 of"):
        dataset(workspace, split="train[:11]", held_out="train[50%:]")
    assert len(documents(dataset(workspace, split="train[:10]", held_out="train[50%:]").train)) == 10


def test_without_a_split_to_hold_out_the_last_part_can_be(workspace: Workspace) -> None:
    (workspace.root / "poems" / "validation.jsonl").unlink()
    with pytest.raises(DataError, match=r"last part of `train`, write `held_out_fraction: 0\.05` in data\.source"):
        dataset(workspace)
    found = dataset(workspace, held_out_fraction=0.1)
    assert documents(found.train) == [f"train {number}" for number in range(18)]
    assert documents(found.held_out) == ["train 18", "train 19"]


def test_all_bad_rows_of_both_splits_are_counted(workspace: Workspace, written: Written) -> None:
    written("poems/train.jsonl", lines({"text": "good"}, {"text": None}, {"text": None}))
    written("poems/validation.jsonl", lines({"text": None}, {"text": "good"}))
    with pytest.raises(DataError, match=r"(?s)^3 faults:\n.*train, row 2:.*train, row 3:.*validation, row 1:"):
        dataset(workspace)


FROM_THE_HUB = """
import json, sys
from pathlib import Path
from gnflow.data.prepare import prepare
from gnflow.spec.data import Text
from gnflow.workspace import Workspace
source = {"kind": "huggingface", "path": "someone/poems", "held_out_fraction": 0.25, "documents": 8}
data = Text.model_validate({"source": source, "tokenizer": "bytes", "context": 2})
found = prepare(data, Workspace(Path(sys.argv[1])))
print(json.dumps([bytes(int(i) for i in part if i != 256).decode() for part in (found.train, found.held_out)]))
"""


def test_documents_of_the_hub_are_streamed_by_a_local_stand_in(workspace: Workspace) -> None:
    """The package talks to a hub on this machine, and stops at the number of documents that is asked for."""
    pytest.importorskip("datasets")
    rows = lines(*({"text": f"hub {number};"} for number in range(50)))
    with serve("someone/poems", {"train.jsonl": rows.encode(), "README.md": b""}) as (address, asked):
        done = subprocess.run(
            [sys.executable, "-c", FROM_THE_HUB, str(workspace.root)],
            env={**os.environ, "HF_ENDPOINT": address, "HF_HUB_OFFLINE": "0", "HF_HOME": str(workspace.root / "home")},
            capture_output=True,
            text=True,
            check=False,
            timeout=300,
        )
    assert done.returncode == 0, (done.stderr[-2000:], asked)
    train, held_out = json.loads(done.stdout.splitlines()[-1])
    assert train + held_out == "".join(f"hub {number};" for number in range(8))
    assert held_out == "hub 6;hub 7;"
    assert any("/resolve/" in request and request.endswith("train.jsonl") for request in asked)
