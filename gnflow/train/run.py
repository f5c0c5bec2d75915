"""A run directory as an object."""

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Self

from gnflow.errors import DiskProblem, SpecError
from gnflow.spec.experiment import Experiment
from gnflow.spec.load import load
from gnflow.spec.recognition import recognize
from gnflow.train.journal import JOURNAL, read
from gnflow.workspace import Workspace

if TYPE_CHECKING:
    import polars


@dataclass(frozen=True)
class Run:
    """The files of a run so far. A run that is still running can be read too."""

    directory: Path
    experiment: Experiment
    plan: dict[str, object]
    summary: dict[str, object]
    """The content of summary.json; empty while the run is running, or if it was killed."""

    @classmethod
    def load(cls, directory: Path | str) -> Self:
        """Read a run, given its directory or its name under `runs/` of the current project.

        Raises SpecError if there is no run, and DiskProblem if it cannot be read.
        """
        found = find_run(Path(directory))
        if found is None:
            raise SpecError(f"{directory} is no run: {_explain_absence(Path(directory))}")
        experiment = load(found / "experiment.yaml").experiment
        return cls(found, experiment, _read_json(found / "plan.json"), _read_json(found / "summary.json"))

    @cached_property
    def metrics(self) -> "polars.DataFrame":
        """The journal as a table: a row for each step, a column for each value, null if a step has none."""
        from gnflow.train.table import make_table

        return make_table(read(self.directory / JOURNAL).steps.values())


def find_run(run: Path) -> Path | None:
    """Find the directory of a run by its path, or by its name under `runs/` of the current project.

    Raises DiskProblem if it cannot be read.
    """
    for place in (run, Workspace.find(Path.cwd()).runs / run):
        try:
            if (place / "experiment.yaml").is_file():
                return place
        except OSError as error:
            raise DiskProblem(f"{place} cannot be read: {error.strerror}") from error
    return None


def _explain_absence(directory: Path) -> str:
    if not directory.exists():
        return "there is no such directory, and no run of this name in the project around here"
    if found := recognize(directory):
        return f"it is {found.what}; {found.advice}"
    if not directory.is_dir():
        return "it is a file"
    return "it has no experiment.yaml"


def _read_json(path: Path) -> dict[str, object]:
    try:
        content = json.loads(path.read_bytes())
    except FileNotFoundError:
        return {}
    except ValueError as error:
        raise SpecError(f"{path} cannot be read: {error}") from error
    except OSError as error:
        raise DiskProblem(f"{path} cannot be read: {error.strerror}") from error
    return content if isinstance(content, dict) else {}
