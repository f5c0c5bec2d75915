"""Every way for data to be wrong, through the command line: exit code 4, the file, the row, and what to do."""

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars
import pytest
import tiny
from acting import at
from corpora import lines, prose
from rot import flip
from tokenizers import Tokenizer
from tokenizers.models import WordLevel

from gnflow.cli import main
from gnflow.errors import DataError
from gnflow.train.journal import read
from gnflow.train.loop import run
from gnflow.train.run import Run
from gnflow.workspace import Workspace

Section = dict[str, object]
FILES: Section = {"source": {"kind": "files", "paths": ["a.txt"]}, "tokenizer": "bytes", "context": 8}
ROWS: Section = {**FILES, "source": {"kind": "files", "paths": ["a.jsonl"]}}
TABLE: Section = {**FILES, "source": {"kind": "files", "paths": ["a.parquet"]}}
IDS: Section = {"source": {"kind": "tokens", "train": "a.npy", "held_out": "b.npy", "vocabulary": 50}, "context": 8}
WORDS: Section = {**FILES, "tokenizer": {"kind": "huggingface", "path": "words.json", "vocabulary": 300}}


def text(root: Path, content: bytes) -> None:
    (root / "a.txt").write_bytes(content)


def parquet(root: Path, kept: float = 1.0, **columns: list[object]) -> None:
    path = root / "a.parquet"
    polars.DataFrame(columns or {"text": [f"row {number} of the table" for number in range(3000)]}).write_parquet(path)
    path.write_bytes(path.read_bytes()[: round(kept * path.stat().st_size)])


def ids(root: Path, train: list[int]) -> None:
    np.save(root / "a.npy", np.array(train))
    np.save(root / "b.npy", np.arange(20))


def words(root: Path, size: int) -> None:
    text(root, prose(200).encode())
    entries = {f"w{number}": number for number in range(size)}
    Tokenizer(WordLevel(entries, unk_token="w0")).save(str(root / "words.json"))


BAD: dict[str, tuple[Section, Callable[[Path], None], str]] = {
    "no document": (FILES, lambda root: text(root, b""), "nothing in the training part of data.source"),
    "no row": (ROWS, lambda root: (root / "a.jsonl").write_text("\n\n"), "nothing in the training part of data.source"),
    "a document shorter than the context": (FILES, lambda root: text(root, b"short text"), "held-out text has 2"),
    "not UTF-8": (FILES, lambda root: text(root, b"one\ntwo\nthr\xe9e\n"), "a.txt:3: byte 4 of the line (0xe9)"),
    "UTF-16": (FILES, lambda root: text(root, prose(99).encode("utf-16")), "a.txt:1: byte 1 of the line (0xff)"),
    "not JSON": (ROWS, lambda root: (root / "a.jsonl").write_text(lines({"text": "x"}) + "{"), "jsonl:2 is not JSON"),
    "another column": (ROWS, lambda root: (root / "a.jsonl").write_text(lines({"body": "x"})), "1 has no column"),
    "truncated Parquet": (TABLE, lambda root: parquet(root, 0.7), "is not a complete Parquet file (after row 0)"),
    "foreign Parquet": (TABLE, lambda root: parquet(root, id=[1], url=["x"]), "parquet has no column `text`; it has"),
    "a null in Parquet": (TABLE, lambda root: parquet(root, text=["x", None]), "a.parquet, row 2: `text` is null"),
    "Parquet by name alone": (TABLE, lambda root: (root / "a.parquet").write_text("text"), "complete Parquet file"),
    "an id beyond the vocabulary": (IDS, lambda root: ids(root, [1] * 70 + [50]), "a.npy: token 70 is 50; expected"),
    "a negative id": (IDS, lambda root: ids(root, [1, -1]), "a.npy: token 1 is -1"),
    "a tokenizer of another size": (WORDS, lambda root: words(root, 200), "words.json"),
}  # fmt: skip


@pytest.mark.parametrize("what", BAD)
def test_bad_data_is_named_with_its_place(
    what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    section, arrange, said = BAD[what]
    (tmp_path / "dvc.yaml").touch()
    (tmp_path / "spec.yaml").write_text(json.dumps(tiny.tiny() | {"data": section}))
    arrange(tmp_path)
    monkeypatch.setenv("PYDANTIC_DISABLE_PLUGINS", "true")
    monkeypatch.setattr(sys, "argv", ["gnflow", "prepare", str(tmp_path / "spec.yaml")])
    with pytest.raises(SystemExit) as left:
        main()
    error = capsys.readouterr().err
    assert left.value.code == 4, error
    assert said in error
    assert "Traceback" not in error


@pytest.fixture
def project(finished: Path, tmp_path: Path) -> Path:
    """A project with prepared data and warmed weights, and no run."""
    root = Path(shutil.copytree(finished, tmp_path / "project"))
    shutil.rmtree(root / "runs")
    return root


def go(root: Path, act: Callable[[], object] = lambda: None) -> Run:
    return run(tiny.experiment(), Workspace(root), watches=[at(3, act)])


def shard(root: Path) -> Path:
    [path] = (root / "data").glob("*/train.npy")
    return path


CHANGES: dict[str, Callable[[Path], object]] = {
    "written to": lambda path: path.write_bytes(path.read_bytes()[:-2] + b"!!"),
    "replaced": lambda path: shutil.copy(path.with_name("held_out.npy"), path.with_name("new")).replace(path),
    "removed": lambda path: path.unlink(),
}


@pytest.mark.parametrize("what", CHANGES)
def test_a_shard_that_changes_under_a_run_stops_it_before_the_next_checkpoint(
    what: str, project: Path, finished: Path
) -> None:
    path = shard(project)
    with pytest.raises(DataError, match=rf"{path} is damaged: it changed while the run read it") as raised:
        go(project, lambda: CHANGES[what](path))
    assert raised.value.exit_code == 4
    directory = project / "runs" / "tiny"
    assert sorted(saved.name for saved in (directory / "checkpoints").iterdir()) == ["step_00000002"]
    shutil.rmtree(path.parent)
    go(project)
    ours, theirs = (root / "runs" / "tiny" / "model" / "params.safetensors" for root in (project, finished))
    assert ours.read_bytes() == theirs.read_bytes()
    assert list(read(directory / "journal.jsonl").steps) == list(range(7))


def test_a_shard_that_is_linked_anew_under_a_run_does_not_stop_it(project: Path) -> None:
    path = shard(project)
    assert go(project, lambda: shutil.copy(path, path.with_name("new")).replace(path)).summary["status"] == "complete"


def test_a_run_does_not_begin_on_a_shard_that_rotted(project: Path) -> None:
    path = shard(project)
    flip(path, 200)
    with pytest.raises(DataError, match=rf"{path} is damaged: its SHA-256 is"):
        go(project)
