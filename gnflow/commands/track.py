"""`gnflow track RUN..`: send MLflow what it does not have of runs; refills a store that was lost."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

from gnflow.study.find import find
from gnflow.track.mirror import replay
from gnflow.train.journal import JOURNAL, first_line
from gnflow.workspace import Workspace


def track(runs: Sequence[Path]) -> int:
    """Prints a line for each run, with its id in MLflow. A directory that is no run stands for all the runs inside it.

    Raises EnvironmentProblem when MLflow is missing or away, or a run has recorded nothing.
    """
    for run in sorted(dict.fromkeys(found for name in runs for found in _meant(name)), key=_began):
        print(f"{run} is run {replay(run)}", flush=True)
    return 0


def _meant(name: Path) -> Iterator[Path]:
    for place in (name, Workspace.around(Path.cwd()).runs / name):
        if not (place / "experiment.yaml").is_file() and (inside := list(_inside(place))):
            yield from inside
            return
    yield find(name).directory


def _inside(place: Path) -> Iterator[Path]:
    """Runs that have recorded something, at any depth; not those set aside in hidden directories."""
    for spec in sorted(place.rglob("experiment.yaml")):
        run = spec.parent
        hidden = any(part.startswith(".") for part in run.relative_to(place).parts)
        if not hidden and first_line(run / JOURNAL) is not None:
            yield run


def _began(run: Path) -> float:
    """So that a study begins with the first of its runs."""
    line = first_line(run / JOURNAL)
    return float(json.loads(line)["time"]) if line else 0.0
