import hashlib
import json
import os
import shutil
from pathlib import Path

import pytest
from corpora import prose, text

from gnflow.data import dataset as opening
from gnflow.data.dataset import Dataset
from gnflow.data.prepare import prepare
from gnflow.errors import DataError
from gnflow.spec.data import Text
from gnflow.workspace import Workspace

FILES = ["train.npy", "held_out.npy", "tokenizer.json"]
SECTION = text(source={"kind": "files", "paths": ["a.txt"]}, tokenizer={"kind": "bpe", "vocabulary": 300}, context=8)


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    workspace = Workspace(tmp_path_factory.mktemp("original"))
    (workspace.root / "a.txt").write_text(prose(3000))
    prepare(SECTION, workspace)
    return workspace


@pytest.fixture
def prepared(original: Workspace, tmp_path: Path) -> Dataset:
    """A copy to damage."""
    shutil.copytree(original.root, tmp_path, dirs_exist_ok=True)
    return prepare(SECTION, Workspace(tmp_path))


def flip(path: Path, place: int) -> None:
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(content)


def failure(prepared: Dataset, section: Text = SECTION) -> str:
    before = sorted(path.read_bytes() for path in prepared.directory.iterdir())
    with pytest.raises(DataError) as caught:
        prepare(section, Workspace(prepared.directory.parents[1]))
    assert sorted(path.read_bytes() for path in prepared.directory.iterdir()) == before, "remade without a word"
    assert f"delete the directory {prepared.directory}" in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("place", [0, 100, -1])
def test_a_flipped_bit_is_found_and_its_file_named(prepared: Dataset, name: str, place: int) -> None:
    path = prepared.directory / name
    before = path.stat()
    flip(path, place)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert f"{path} is damaged: its SHA-256 is" in failure(prepared)


@pytest.mark.parametrize("name", FILES)
def test_a_flipped_bit_in_a_large_file_is_found_at_its_next_opening(
    prepared: Dataset, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(opening, "REMEMBER_FROM", 0)
    workspace = Workspace(prepared.directory.parents[1])
    path = prepared.directory / name
    os.utime(path, (1_700_000_000, 1_700_000_000))
    prepare(SECTION, workspace)
    assert str(path) in json.loads((workspace.cache / "digests.json").read_text())
    flip(path, 100)
    assert f"{path} is damaged: its SHA-256 is" in failure(prepared)


@pytest.mark.parametrize("name", FILES)
def test_a_truncated_or_missing_file_is_named(prepared: Dataset, name: str) -> None:
    path = prepared.directory / name
    content = path.read_bytes()
    path.write_bytes(content[:-2])
    assert f"{path} is damaged: it has {len(content) - 2} bytes, and the manifest says {len(content)}" in failure(
        prepared
    )
    path.unlink()
    assert f"{path} is damaged: No such file" in failure(prepared)


@pytest.mark.parametrize("content", ["", "{}", "[]", '{"key": 1', '{"key": "x", "format": 1}'])
def test_a_damaged_manifest_is_named(prepared: Dataset, content: str) -> None:
    path = prepared.directory / "manifest.json"
    path.write_text(content)
    assert f"{path} is damaged" in failure(prepared)
    path.unlink()
    assert f"{path} is damaged: No such file" in failure(prepared)


def test_the_manifest_of_another_corpus_is_refused(prepared: Dataset) -> None:
    other = SECTION.model_copy(update={"tokenizer": None})
    workspace = Workspace(prepared.directory.parents[1])
    directory = prepare(other, workspace).directory
    shutil.rmtree(prepared.directory)
    directory.rename(prepared.directory)
    assert "it belongs to another corpus" in failure(prepared)


def test_after_deleting_a_damaged_directory_it_is_made_again_with_the_same_digest(prepared: Dataset) -> None:
    flip(prepared.directory / "train.npy", -1)
    failure(prepared)
    shutil.rmtree(prepared.directory)
    again = prepare(SECTION, Workspace(prepared.directory.parents[1]))
    assert again.digest == prepared.digest


def test_the_digest_is_of_both_shards_and_the_tokenizer(prepared: Dataset) -> None:
    path = prepared.directory / "manifest.json"
    original = json.loads(path.read_text())
    assert sorted(original["files"]) == sorted(FILES)
    digests = {prepared.digest}
    workspace = Workspace(prepared.directory.parents[1])
    for name in FILES:
        flip(prepared.directory / name, -1)
        changed = json.loads(json.dumps(original))
        for file in FILES:
            changed["files"][file]["sha256"] = hashlib.sha256((prepared.directory / file).read_bytes()).hexdigest()
        path.write_text(json.dumps(changed))
        digests.add(prepare(SECTION, workspace).digest)
    assert len(digests) == 4


def test_shards_cannot_be_written_to(prepared: Dataset) -> None:
    with pytest.raises(ValueError, match="read-only"):
        prepared.train[0] = 1
