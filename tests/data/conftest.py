"""Real corpora: the plays, prepared once for all tests, and small files made on the spot."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from corpora import text

from gnflow.data.dataset import Dataset
from gnflow.data.prepare import prepare
from gnflow.workspace import Workspace


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
