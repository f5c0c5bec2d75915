import os
from collections.abc import Callable
from pathlib import Path

import pytest

from gnflow.data.sources.paths import find_matching
from gnflow.errors import DataError

Written = Callable[..., Path]


def found(root: Path, *patterns: str) -> list[str]:
    return [path.relative_to(root).as_posix() for path in find_matching(patterns, root, "data.source.paths")]


def test_a_wildcard_matches_no_name_that_begins_with_a_dot(tmp_path: Path, written: Written) -> None:
    for name in ("c/a.txt", "c/.a.txt", "c/.ipynb_checkpoints/a-checkpoint.txt", "c/d/.git/b.txt", "c/d/b.txt"):
        written(name, name)
    assert found(tmp_path, "c/**/*.txt") == ["c/a.txt", "c/d/b.txt"]
    assert found(tmp_path, "c/*") == ["c/a.txt"]
    assert found(tmp_path, "*/*/*.txt") == ["c/d/b.txt"]
    assert found(tmp_path, "c/.*.txt") == ["c/.a.txt"]
    assert found(tmp_path, "c/.ipynb*/*.txt") == ["c/.ipynb_checkpoints/a-checkpoint.txt"]
    assert found(tmp_path, "c/.a.txt") == ["c/.a.txt"]


def test_linked_folders_are_followed(
    tmp_path: Path, written: Written, tmp_path_factory: pytest.TempPathFactory
) -> None:
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    (elsewhere / "deep").mkdir()
    (elsewhere / "deep" / "far.txt").write_text("far")
    written("c/near.txt", "near")
    (tmp_path / "c" / "linked").symlink_to(elsewhere)
    assert found(tmp_path, "c/**/*.txt") == ["c/linked/deep/far.txt", "c/near.txt"]
    assert found(tmp_path, "**/far.txt") == ["c/linked/deep/far.txt"]


def test_circles_end_and_a_folder_with_two_names_is_read_under_its_own(tmp_path: Path, written: Written) -> None:
    written("c/z/a.txt", "a")
    (tmp_path / "c" / "again").symlink_to(tmp_path / "c")
    (tmp_path / "c" / "z" / "up").symlink_to(tmp_path)
    (tmp_path / "c" / "b").symlink_to(tmp_path / "c" / "z")
    (tmp_path / "c" / "itself").symlink_to(tmp_path / "c" / "itself")
    assert found(tmp_path, "c/**/*.txt") == ["c/z/a.txt"]


def test_a_name_that_exists_is_no_pattern(tmp_path: Path, written: Written) -> None:
    written("data[1].txt", "literal")
    written("data1.txt", "matched")
    written("run[2]/a.txt", "in a folder")
    assert found(tmp_path, "data[1].txt") == ["data[1].txt"]
    assert found(tmp_path, "run[2]/*.txt") == ["run[2]/a.txt"]
    (tmp_path / "data[1].txt").unlink()
    assert found(tmp_path, "data[1].txt") == ["data1.txt"]


def test_a_link_to_nothing_is_named(tmp_path: Path, written: Written) -> None:
    written("c/a.txt", "a")
    (tmp_path / "c" / "b.txt").symlink_to(tmp_path / "annexed" / "b")
    for name in ("c/*.txt", "c/b.txt"):
        with pytest.raises(DataError, match=r"b\.txt[^ ]*(?s:.*) link to .*annexed/b, which is not there"):
            found(tmp_path, name)


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_a_folder_that_cannot_be_read_is_named(tmp_path: Path, written: Written) -> None:
    folder = written("c/d/a.txt", "a").parent
    folder.chmod(0)
    try:
        with pytest.raises(DataError, match=r"c/d cannot be read: Permission denied"):
            found(tmp_path, "c/**/*.txt")
    finally:
        folder.chmod(0o700)


def test_all_names_of_nothing_are_told_at_once(tmp_path: Path, written: Written) -> None:
    written("a.txt", "a")
    with pytest.raises(DataError) as caught:
        found(tmp_path, "b.txt", "a.txt", "c/*.txt", *(f"no{number}.txt" for number in range(20)))
    told = str(caught.value).splitlines()
    assert told[0] == "22 faults, the first 10:"
    assert "`b.txt`" in told[1]
    assert "`c/*.txt`" in told[2]
    assert "`no7.txt`" in told[10]
    assert "no8" not in str(caught.value)
