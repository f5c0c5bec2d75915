"""Runs by directory or by name."""

from collections.abc import Iterator
from difflib import get_close_matches
from pathlib import Path

from gnflow.errors import SpecError
from gnflow.train.run import Run, located
from gnflow.workspace import Workspace


def find(run: Path) -> Run:
    """A directory, or a name under `runs/` of the project around here. Raises SpecError with the nearest name."""
    if (directory := located(run)) is not None:
        return Run.load(directory)
    runs = Workspace.around(Path.cwd()).runs
    names = [directory.relative_to(runs).as_posix() for directory in all_in(runs)]
    near = get_close_matches(run.as_posix().removeprefix("runs/"), names, n=1)
    hint = f"; did you mean `{near[0]}`?" if near else f"; known: {', '.join(names) or 'none'}"
    raise SpecError(f"no run `{run}`{hint}")


def all_in(runs: Path) -> list[Path]:
    """Run directories under `runs`, at any depth, by name. Not those in hidden folders, and none inside another."""
    return sorted(_below(runs))


def _below(folder: Path) -> Iterator[Path]:
    for path in folder.iterdir() if folder.is_dir() else ():
        if path.name.startswith("."):
            continue
        if (path / "experiment.yaml").is_file():
            yield path
        elif path.is_dir() and not path.is_symlink():
            yield from _below(path)
