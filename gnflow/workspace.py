"""Where things live: the project root and the directories under it."""

from dataclasses import dataclass
from pathlib import Path

MARKS = ("dvc.yaml", ".git")
STUDY = "study.yaml"


@dataclass(frozen=True)
class Workspace:
    """A project root. Nothing is created until it is written to."""

    root: Path

    @classmethod
    def around(cls, path: Path) -> "Workspace":
        """The nearest ancestor of `path` with a `dvc.yaml` or `.git`, else the directory of `path`.

        The `dvc.yaml` of a study is a pipeline of the project around it.
        """
        start = path.resolve()
        start = start if start.is_dir() else start.parent
        for directory in (start, *start.parents):
            if any((directory / mark).exists() for mark in MARKS) and not (directory / STUDY).exists():
                return cls(directory)
        return cls(start)

    @classmethod
    def holding(cls, run: Path) -> "Workspace":
        """The project that a run directory lies in; that around here for one which was copied out of its own."""
        found = cls.around(run)
        return found if found.root != run.resolve() else cls.around(Path.cwd())

    @property
    def marked(self) -> bool:
        """Whether something says that the root is that of a project."""
        return any((self.root / mark).exists() for mark in MARKS)

    @property
    def reproducible(self) -> bool:
        """Whether `dvc repro` works here: there is a Git and a DVC repository around the root."""
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
        """The folder of what can be made again, such as starting weights and compiled graphs."""
        return self.root / ".gnflow"

    @property
    def mlflow(self) -> Path:
        """The folder of the local MLflow store."""
        return self.root / "mlflow"


def find_ancestor(folder: Path, name: str) -> Path | None:
    """The nearest of the folder and its ancestors that has a file or directory of this name."""
    return next((place for place in (folder, *folder.parents) if (place / name).exists()), None)
