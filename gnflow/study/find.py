"""Find runs by directory or by name. A run that cannot be read does not hide the others."""

import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from gnflow.errors import EnvironmentProblem, GnflowError, SpecError
from gnflow.secrets import hide_secrets
from gnflow.spec.recognition import recognize
from gnflow.spec.suggest import find_nearest
from gnflow.train.run import Run, find_run
from gnflow.workspace import Workspace


class NoRun(SpecError):
    """There is no run with this name."""


class Walk(NamedTuple):
    """All runs below a folder."""

    runs: list[Path]
    unread: dict[Path, str]
    """Folders that could not be read, each with the reason."""


class ReadRuns(NamedTuple):
    """The runs that can be read, and those that cannot."""

    runs: list[Run]
    unread: dict[Path, str]
    """Runs that cannot be read, each with the reason."""


def find(run: Path) -> Run:
    """Find a run by its directory or its name under `runs/` of the project. Raises NoRun with the most similar name."""
    if (directory := find_run(run)) is not None:
        return Run.load(directory)
    runs = Workspace.find(Path.cwd()).runs
    names = [directory.relative_to(runs).as_posix() for directory in list_runs(runs)]
    near = find_nearest(run.as_posix().removeprefix("runs/"), names)
    if other := recognize(run):
        hint = f": this is {other.what}; {other.advice}"
    else:
        hint = f"; did you mean `{near}`?" if near else f"; the runs here: {', '.join(names) or 'none'}"
    raise NoRun(f"there is no run `{run}`{hint}")


def read_runs(names: Sequence[Path]) -> ReadRuns:
    """Read the runs of these names. Raises NoRun for an unknown name, and EnvironmentProblem if no run can be read."""
    found, unread = [], {}
    for name in names:
        try:
            run = find(name)
            run.metrics  # noqa: B018  # the journal is read now, where its fault can be put down to this run
        except NoRun:
            raise
        except GnflowError as problem:
            unread[name] = str(problem)
        else:
            found.append(run)
    if unread and not found:
        raise EnvironmentProblem("\n".join(_describe_unread(unread)))
    return ReadRuns(found, unread)


def report_unread(unread: Mapping[Path, str]) -> int:
    """Print on standard error the runs that were left out. Return the exit code: 7 if there are any, else 0."""
    for line in _describe_unread(unread):
        print(hide_secrets(line), file=sys.stderr)
    return EnvironmentProblem.exit_code if unread else 0


def _describe_unread(unread: Mapping[Path, str]) -> list[str]:
    return [f"{path} is left out: {' '.join(why.split())}" for path, why in unread.items()]


def list_runs(runs: Path) -> list[Path]:
    """List run directories under `runs`, at any depth, by name, except in hidden folders or inside another run."""
    return walk(runs).runs


def walk(runs: Path) -> Walk:
    """List run directories like `all_in`, and the folders that could not be read."""
    unread: dict[Path, str] = {}
    return Walk(sorted(_walk_folder(runs, unread)), unread)


def _walk_folder(folder: Path, unread: dict[Path, str]) -> Iterator[Path]:
    try:
        paths = sorted(folder.iterdir()) if folder.is_dir() else []
    except OSError as error:
        unread[folder] = f"it cannot be read ({error.strerror})"
        return
    for path in paths:
        if path.name.startswith("."):
            continue
        try:
            is_run, is_folder = (path / "experiment.yaml").is_file(), path.is_dir() and not path.is_symlink()
        except OSError as error:
            unread[path] = f"it cannot be read ({error.strerror})"
            continue
        if is_run:
            yield path
        elif is_folder:
            yield from _walk_folder(path, unread)
