"""`gnflow track RUN..`: send MLflow everything that it lacks of runs, for example after a store was lost."""

import json
from collections.abc import Sequence
from pathlib import Path

from gnflow.errors import EnvironmentProblem, GnflowError
from gnflow.study.find import find, walk
from gnflow.track.mirror import StoreAway, replay
from gnflow.train.journal import JOURNAL, read_first_line
from gnflow.workspace import Workspace


def track(runs: Sequence[Path]) -> int:
    """Print a line for each run, with its id in MLflow. A directory that is not a run stands for all runs inside it.

    Raises EnvironmentProblem if MLflow is missing or does not answer, and at the end, with all runs that were not sent.
    """
    problems: dict[Path, str] = {}
    meant = sorted(dict.fromkeys(found for name in runs for found in _find_runs(name, problems)), key=_find_start)
    for number, run in enumerate(meant, start=1):
        try:
            print(f"{run} is run {replay(run)}", flush=True)
        except StoreAway as away:
            rest = len(meant) - number
            problems[run] = f"{away}{f'. The {rest} runs after it were not tried' if rest else ''}"
            break
        except GnflowError as problem:
            problems[run] = str(problem)
        except OSError as error:
            problems[run] = f"{run} cannot be read: {error.strerror}"
    if problems:
        raise EnvironmentProblem("\n".join(problems.values()))
    return 0


def _find_runs(name: Path, problems: dict[Path, str]) -> list[Path]:
    for place in (name, Workspace.find(Path.cwd()).runs / name):
        found, unread = walk(place)
        inside = [run for run in found if _has_records(run)]
        if not _is_run(place) and (inside or unread):
            problems.update({path: f"{path} is left out: {why}" for path, why in unread.items()})
            return inside
    try:
        return [find(name).directory]
    except GnflowError as problem:
        if _is_run(name):
            problems[name] = str(problem)
            return []
        raise


def _is_run(place: Path) -> bool:
    try:
        return (place / "experiment.yaml").is_file()
    except OSError:
        return False


def _has_records(run: Path) -> bool:
    """Return whether a run has records to send. A journal that cannot be read counts, and is named when it is sent."""
    try:
        return read_first_line(run / JOURNAL) is not None
    except OSError:
        return True


def _find_start(run: Path) -> float:
    """Return when the run began, so that a study begins with the first of its runs."""
    try:
        line = read_first_line(run / JOURNAL)
        return float(json.loads(line)["time"]) if line else 0.0
    except (OSError, ValueError, LookupError, TypeError):
        return 0.0
