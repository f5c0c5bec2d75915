"""Real corpora: the plays, prepared once for all tests, and small files made on the spot."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from gnflow.data.dataset import Dataset
from gnflow.data.prepare import prepare
from gnflow.spec.data import Text
from gnflow.workspace import Workspace

WORDS = "the quick brown fox jumps over the lazy dog and runs away from a king ".split()


def text(**section: object) -> Text:
    return Text.model_validate(section)


def prose(words: int, seed: int = 0) -> str:
    """Text that differs with the seed, eight words to a line."""
    numbers = [(word * 7919 + seed * 104729 + word * word) % 9973 for word in range(words)]
    chosen = [WORDS[number % len(WORDS)] + ("" if number % 5 else str(number)) for number in numbers]
    return "".join(" ".join(chosen[start : start + 8]) + "\n" for start in range(0, words, 8))


@pytest.fixture(scope="session")
def shakespeare(tmp_path_factory: pytest.TempPathFactory) -> tuple[Dataset, Workspace]:
    """The plays as every test's default corpus; parallel workers of pytest prepare them together, once."""
    shared = tmp_path_factory.getbasetemp()
    workspace = Workspace((shared.parent if "PYTEST_XDIST_WORKER" in os.environ else shared) / "shakespeare")
    return prepare(text(), workspace), workspace


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace(tmp_path)


@pytest.fixture
def written(tmp_path: Path) -> Callable[..., Path]:
    """Write a file under the project root."""

    def write(name: str, content: str | bytes) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return write
