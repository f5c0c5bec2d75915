"""The project root and the directories under it."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path

MARKS = ("dvc.yaml", ".git")
STUDY = "study.yaml"


@dataclass(frozen=True)
class Workspace:
    """A project root. Nothing is created until it is written to."""

    root: Path

    @classmethod
    def find(cls, path: Path) -> "Workspace":
        """Find the nearest ancestor of `path` with a `dvc.yaml` or `.git`, else the directory of `path`.

        The `dvc.yaml` of a study does not count, since it is a pipeline of the project around the study.
        """
        # Unlike `Path.resolve` this does not raise for a link that leads back to itself; reading the file says so.
        start = Path(os.path.realpath(path))
        start = start if start.is_dir() else start.parent
        for directory in (start, *start.parents):
            if any((directory / mark).exists() for mark in MARKS) and not (directory / STUDY).exists():
                return cls(directory)
        return cls(start)

    @classmethod
    def find_for_run(cls, run: Path) -> "Workspace":
        """Find the project that a run directory lies in, or the current one if the run was copied out of its own."""
        found = cls.find(run)
        return found if found.root != run.resolve() else cls.find(Path.cwd())

    @property
    def is_project(self) -> bool:
        """Whether the root has a mark of a project."""
        return any((self.root / mark).exists() for mark in MARKS)

    @property
    def can_reproduce(self) -> bool:
        """Whether `dvc repro` works here, because a Git and a DVC repository are around the root."""
        return all(find_ancestor(self.root, name) for name in (".git", ".dvc"))

    @property
    def runs(self) -> Path:
        """The folder of run directories."""
        return self.root / "runs"

    @property
    def data(self) -> Path:
        """The folder of prepared shards, with one directory for each distinct `data:` section."""
        return self.root / "data"

    @property
    def cache(self) -> Path:
        """The folder of files that can be made again, such as starting weights and compiled graphs."""
        return self.root / ".gnflow"

    @property
    def mlflow(self) -> Path:
        """The folder of the local MLflow store."""
        return self.root / "mlflow"


def find_ancestor(folder: Path, name: str) -> Path | None:
    """Return the folder or its nearest ancestor that has a file or directory of this name; None if there is none."""
    return next((place for place in (folder, *folder.parents) if (place / name).exists()), None)


_root: ContextVar[Path | None] = ContextVar("root", default=None)


def find_root() -> Path:
    """Return the root of the project that is being read; outside of any, that of the current directory."""
    return _root.get() or Workspace.find(Path.cwd()).root


@contextmanager
def read_in(workspace: Workspace) -> Iterator[None]:
    """Take paths in a spec as relative to this project inside the context."""
    token = _root.set(workspace.root)
    try:
        yield
    finally:
        _root.reset(token)
