import hashlib
import json
import os
from pathlib import Path

import pytest

from gnflow.data.digests import Digests
from gnflow.errors import DataError

OLD = 1_700_000_000


def digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def file(directory: Path, content: bytes, when: int | None = OLD) -> Path:
    path = directory / "a.npy"
    with path.open("r+b" if path.exists() else "wb") as opened:
        opened.write(content)
    if when:
        os.utime(path, (when, when))
    return path


def test_an_unchanged_file_is_read_once(tmp_path: Path) -> None:
    memory = tmp_path / "memory" / "digests.json"
    digests = Digests(memory)
    assert digests.sha256(file(tmp_path, b"one")) == digest(b"one")
    digests.save()
    # The same time, size and inode: only a remembered digest can differ from the content.
    path = file(tmp_path, b"two")
    assert Digests(memory).sha256(path) == digest(b"one")
    assert Digests(memory).sha256(path, remember_from=4) == digest(b"two")


@pytest.mark.parametrize(("content", "when"), [(b"two", OLD + 1), (b"longer", OLD)])
def test_another_time_or_size_is_read_again(tmp_path: Path, content: bytes, when: int) -> None:
    digests = Digests(tmp_path / "digests.json")
    digests.sha256(file(tmp_path, b"one"))
    assert digests.sha256(file(tmp_path, content, when)) == digest(content)


def test_another_inode_is_read_again(tmp_path: Path) -> None:
    digests = Digests(tmp_path / "digests.json")
    path = file(tmp_path, b"one")
    digests.sha256(path)
    path.rename(tmp_path / "old.npy")
    assert digests.sha256(file(tmp_path, b"two")) == digest(b"two")


def test_a_file_written_just_now_is_not_remembered(tmp_path: Path) -> None:
    digests = Digests(tmp_path / "digests.json")
    digests.sha256(file(tmp_path, b"one", when=None))
    assert digests.known == {}
    digests.save()
    assert not digests.memory.exists()


@pytest.mark.parametrize("content", ["", "[1]", "{"])
def test_a_damaged_memory_is_forgotten(tmp_path: Path, content: str) -> None:
    memory = tmp_path / "digests.json"
    memory.write_text(content)
    digests = Digests(memory)
    assert digests.sha256(file(tmp_path, b"one")) == digest(b"one")
    digests.save()
    assert list(json.loads(memory.read_text())) == [str(tmp_path / "a.npy")]


def test_a_project_that_cannot_be_written_to_does_without_memory(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    digests = Digests(tmp_path / "file" / "digests.json")
    digests.sha256(file(tmp_path, b"one"))
    digests.save()


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"gone cannot be read: No such file"):
        Digests(tmp_path / "digests.json").sha256(tmp_path / "gone")
