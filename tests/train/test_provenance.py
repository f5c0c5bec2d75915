import json
import subprocess
from pathlib import Path

import pytest
import torch

from gnflow.errors import DiskProblem
from gnflow.train import provenance


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("GIT_AUTHOR", "GIT_COMMITTER"):
        monkeypatch.setenv(f"{name}_NAME", "A")
        monkeypatch.setenv(f"{name}_EMAIL", "a@example.org")
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", "/dev/null")
    root = tmp_path / "project"
    root.mkdir()
    git(root, "init", "--quiet")
    (root / "code.py").write_text("x = 1\n")
    (root / ".gitignore").write_text("/runs/\n")
    git(root, "add", ".")
    git(root, "commit", "--quiet", "-m", "first")
    git(root, "remote", "add", "origin", "https://someone:hunter2@example.org/project.git")
    return root


def git(root: Path, *command: str) -> str:
    return subprocess.run(["git", "-C", root, *command], check=True, capture_output=True, text=True).stdout.strip()


def record(root: Path, resumed_from: int | None = None, said: list[str] | None = None) -> dict[str, object]:
    directory = root / "runs" / "one"
    provenance.record(
        directory,
        root,
        digests={"spec": "5" * 64, "data": "d" * 64},
        seeds={"training": 3},
        device=torch.device("cpu"),
        resumed_from=resumed_from,
        report=(said if said is not None else []).append,
    )
    content: dict[str, object] = json.loads((directory / "provenance.json").read_text())
    return content


def test_a_clean_commit_is_named(repository: Path) -> None:
    found = record(repository)
    assert found["git"]["commit"] == git(repository, "rev-parse", "HEAD")
    assert found["git"]["dirty"] is False
    assert "diff" not in found["git"]
    assert found["digests"] == {"spec": "5" * 64, "data": "d" * 64}
    assert found["seeds"] == {"training": 3}
    assert provenance.read_digest(repository / "runs" / "one", "data") == "d" * 64


def test_every_session_adds_an_entry(repository: Path) -> None:
    record(repository)
    sessions = record(repository, resumed_from=5)["sessions"]
    assert [session["resumed_from"] for session in sessions] == [None, 5]
    assert sessions[0]["started"] <= sessions[1]["started"]
    assert sessions[0]["versions"]["torch"] == torch.__version__
    assert sessions[0]["threads"] == torch.get_num_threads()
    assert sessions[0]["device"] == "cpu"
    assert sessions[0]["command"]


@pytest.mark.parametrize("content", ["", '{"git": ', "[]", "[" * 100_000])
def test_a_damaged_file_is_named_and_neither_believed_nor_replaced(repository: Path, content: str) -> None:
    record(repository)
    file = repository / "runs" / "one" / "provenance.json"
    file.write_text(content)
    with pytest.raises(DiskProblem, match=r"one/provenance\.json cannot be read: .+\nrestore a good copy, or delete"):
        provenance.require_same_data(file.parent, "e" * 64, repository / "data")
    with pytest.raises(DiskProblem, match="cannot be read"):
        record(repository)
    assert file.read_text() == content
    file.unlink()
    provenance.require_same_data(file.parent, "e" * 64, repository / "data")


def test_uncommitted_changes_are_kept_as_a_diff(repository: Path) -> None:
    (repository / "code.py").write_text("x = 2\n")
    (repository / "new.py").write_text("")
    found = record(repository)["git"]
    assert found["dirty"] is True
    assert "-x = 1\n+x = 2\n" in found["diff"]
    assert found["untracked"] == ["new.py"]


def test_a_large_diff_goes_to_a_file_of_bounded_size(repository: Path) -> None:
    (repository / "code.py").write_text("".join(f"x = {number}\n" for number in range(200_000)))
    found = record(repository)["git"]
    assert "diff" not in found
    diff = (repository / "runs" / "one" / found["diff_file"]).read_text()
    assert "+x = 77\n" in diff
    assert 1_000_000 < len(diff) < 1_000_100
    assert "more characters left out" in diff


def test_no_secret_is_written(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (repository / "code.py").write_text(
        'url = "https://me:s3cret@host/x"\nkey = "hf_abcdefghijklmnopqrstuv"\ntokens = 5\n'
    )
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "https://user:s3cret@tracking.example.org")
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", "s3cret")
    monkeypatch.setenv("GNFLOW_API_KEY", "s3cret")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    found = record(repository)
    text = json.dumps(found)
    for secret in ("s3cret", "hunter2", "someone", "hf_abc"):
        assert secret not in text
    assert "+tokens = 5" in found["git"]["diff"]
    environment = found["sessions"][0]["environment"]
    assert environment["MLFLOW_TRACKING_URI"] == "https://tracking.example.org"
    assert environment["OMP_NUM_THREADS"] == "1"
    assert found["git"]["remote"] == "https://example.org/project.git"


def test_outside_a_repository_there_is_no_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path))
    said: list[str] = []
    assert record(tmp_path, said=said)["git"] is None
    monkeypatch.setenv("PATH", "")
    assert record(tmp_path, said=said)["git"] is None
    assert not said


def test_a_repository_that_git_refuses_is_told_in_its_own_words(
    repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GIT_TEST_ASSUME_DIFFERENT_OWNER", "1")  # git's own way to try a repository of another user
    said: list[str] = []
    found = record(repository, said=said)
    assert found["git"] is None
    assert "detected dubious ownership in repository" in found["git_problem"]
    assert said == [
        f"warning: provenance.json does not describe this code completely, because git answered: {found['git_problem']}"
    ]
    assert "safe.directory" in said[0]
    assert "\n" not in said[0]


def test_a_repository_without_git_or_without_a_commit_says_so(
    repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    (repository / "new").mkdir()
    git(repository / "new", "init", "--quiet")
    assert record(repository / "new", said=said)["git"] is None
    monkeypatch.setenv("PATH", "")
    assert record(repository, said=said)["git_problem"] == "git cannot be run: No such file or directory"
    assert len(said) == 2
    assert "fatal: " in said[0]


def test_changes_that_git_cannot_tell_are_not_called_none(repository: Path) -> None:
    said: list[str] = []
    (repository / ".git" / "index").write_bytes(b"damaged")
    found = record(repository, said=said)
    assert found["git"]["commit"] == git(repository, "rev-parse", "HEAD")
    assert found["git"]["dirty"] is None
    assert "index file" in found["git_problem"]
    assert len(said) == 1


def test_a_repository_that_answers_has_no_problem(repository: Path) -> None:
    said: list[str] = []
    assert "git_problem" not in record(repository, said=said)
    assert not said
