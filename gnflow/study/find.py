"""Runs by directory or by name."""

from difflib import get_close_matches
from pathlib import Path

from gnflow.errors import SpecError
from gnflow.train.run import Run
from gnflow.workspace import Workspace


def find(run: Path) -> Run:
    """A directory, or a name under `runs/` of the project around here. Raises SpecError with the nearest name."""
    if (run / "experiment.yaml").is_file():
        return Run.load(run)
    runs = Workspace.around(Path.cwd()).runs
    if (runs / run / "experiment.yaml").is_file():
        return Run.load(runs / run)
    names = [directory.name for directory in all_in(runs)]
    near = get_close_matches(run.name, names, n=1)
    hint = f"; did you mean `{near[0]}`?" if near else f"; known: {', '.join(names) or 'none'}"
    raise SpecError(f"no run `{run}`{hint}")


def all_in(runs: Path) -> list[Path]:
    """Run directories under `runs`, by name."""
    return sorted(spec.parent for spec in runs.glob("*/experiment.yaml"))
