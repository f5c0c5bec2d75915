from collections.abc import Callable
from pathlib import Path

import pytest


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project root, and the current directory."""
    (tmp_path / "dvc.yaml").touch()
    (tmp_path / "specs").mkdir()
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def write(project: Path) -> Callable[[str, str], Path]:
    """Writes a file of the project; gives its path relative to the root."""

    def written(name: str, text: str) -> Path:
        (project / name).write_text(text, encoding="utf-8")
        return Path(name)

    return written
