"""Held-out text is not trained on under a second name, in any source that reads files."""

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars
import pytest
from corpora import documents, lines, text

from gnflow.data.multimodal import tables
from gnflow.data.prepare import prepare
from gnflow.errors import DataError
from gnflow.spec.multimodal import ImageFiles, ImageHub
from gnflow.workspace import Workspace

Written = Callable[..., Path]


def refusal(workspace: Workspace, **source: object) -> str:
    with pytest.raises(DataError) as caught:
        prepare(text(source=source, tokenizer="bytes", context=2), workspace)
    return str(caught.value)


def test_a_copy_in_a_hidden_folder_is_not_trained_on(workspace: Workspace, written: Written) -> None:
    written("h.txt", "held out")
    written("c/a.txt", "trained on")
    shutil.copy(workspace.root / "h.txt", written("c/.ipynb_checkpoints/x", "").parent / "h-checkpoint.txt")
    source = {"kind": "files", "paths": ["c/**/*.txt"], "held_out": ["h.txt"]}
    found = prepare(text(source=source, tokenizer="bytes", context=2), workspace)
    assert documents(found.train) == ["trained on"]


@pytest.mark.parametrize("link", [False, True])
def test_a_training_file_with_the_content_of_a_held_out_one_is_refused(
    workspace: Workspace, written: Written, link: bool
) -> None:
    written("h.txt", "held out")
    written("empty.txt", "")
    written("c/empty.txt", "")
    written("c/a.txt", "trained on")
    if link:
        (workspace.root / "c" / "copy.txt").symlink_to(workspace.root / "h.txt")
    else:
        written("c/copy.txt", "held out")
    message = refusal(workspace, kind="files", paths=["c/**/*.txt"], held_out=["h.txt", "empty.txt"])
    assert message.startswith("data.source: `c/copy.txt` would be trained on and has the content of `h.txt`")
    assert not workspace.data.exists()
    written("c/a.txt", "held out")
    message = refusal(workspace, kind="files", paths=["c/**/*.txt"], held_out=["h.txt", "empty.txt"])
    assert message.startswith("2 faults:\n")
    assert "`c/a.txt`" in message


def test_a_training_file_of_a_package_with_the_content_of_a_held_out_one_is_refused(
    workspace: Workspace, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = tmp_path_factory.mktemp("site")
    for name, content in (("a", "one = 1"), ("b", "two = 2"), ("c", "one = 1")):
        (site / f"{name}.py").write_text(content)
    (site / "letters-1.dist-info").mkdir()
    (site / "letters-1.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: letters\nVersion: 1\n")
    (site / "letters-1.dist-info" / "RECORD").write_text("a.py,,\nb.py,,\nc.py,,\n")
    monkeypatch.syspath_prepend(site)
    source = {"kind": "package", "distribution": "letters", "version": "1"}
    message = refusal(workspace, **source, paths=["*.py"], held_out=["a.py"])
    assert "`c.py` would be trained on and has the content of `a.py`" in message
    found = prepare(text(source=source | {"paths": ["b.py", "c.py"]}, tokenizer="bytes", context=2), workspace)
    assert (documents(found.train), documents(found.held_out)) == (["two = 2"], ["one = 1"])


def test_tokens_with_the_same_content_in_both_parts_are_refused(workspace: Workspace) -> None:
    for name in ("a.npy", "b.npy"):
        np.save(workspace.root / name, np.arange(100) % 7)
    with pytest.raises(
        DataError, match=r"`a\.npy` would be trained on and has the content of `b\.npy`, which is held out"
    ):
        prepare(
            text(source={"kind": "tokens", "train": "a.npy", "held_out": "b.npy", "vocabulary": 7}, context=2),
            workspace,
        )


def test_a_split_with_the_files_of_another_is_refused(workspace: Workspace, written: Written) -> None:
    pytest.importorskip("datasets")
    for split in ("train", "validation"):
        written(f"poems/{split}.jsonl", lines({"text": "one"}, {"text": "two"}))
    message = refusal(workspace, kind="huggingface", path="poems")
    assert "`train.jsonl` would be trained on and has the content of `validation.jsonl`" in message


def test_a_table_of_images_with_the_content_of_a_held_out_one_is_refused(workspace: Workspace) -> None:
    from hashlib import sha256

    def digest(path: Path) -> str:
        return sha256(path.read_bytes()).hexdigest()

    (workspace.root / "pictures").mkdir()
    for name in ("train", "validation"):
        polars.DataFrame({"text": ["a"], "image": [b"x"]}).write_parquet(workspace.root / f"pictures/{name}.parquet")
    files = ImageFiles(height=8, width=8, paths=("pictures/train.parquet",), held_out=("pictures/validation.parquet",))
    for identity in (
        lambda: tables.identify_files(files, workspace.root, digest),
        lambda: tables.identify_hub(ImageHub(height=8, width=8, path="pictures"), workspace.root, digest),
    ):
        with pytest.raises(DataError, match=r"`pictures/train\.parquet` would be trained on and has the content of"):
            identity()
