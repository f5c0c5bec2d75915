"""`gnflow track RUN..`: tell trackers everything that they lack of runs, for example after a store was lost."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from pydantic import ValidationError

from gnflow.errors import EnvironmentProblem, GnflowError
from gnflow.records import Tracker
from gnflow.spec.base import join_with_or
from gnflow.spec.classes import find_class
from gnflow.spec.kinds import get_current, use_kinds_of
from gnflow.spec.suggest import find_nearest
from gnflow.spec.tracking import TrackerKind
from gnflow.study.find import find, walk
from gnflow.track.description import describe
from gnflow.track.opening import MLFLOW, StoreAway, refill
from gnflow.train.journal import JOURNAL, read_first_line
from gnflow.workspace import Workspace


class UnknownTracker(GnflowError):
    """There is no tracker of this kind."""

    exit_code = 2


def track(runs: Sequence[Path], to: str | None = None) -> int:
    """Print a line for each run, with its place in its tracker. A directory that is no run stands for all runs inside.

    The tracker is that of the spec of a run, MLflow if it has none, or one of the kind `to`. Raises EnvironmentProblem
    if MLflow is missing or does not answer, and at the end, with all runs that were not sent.
    """
    problems: dict[Path, str] = {}
    meant = sorted(dict.fromkeys(found for name in runs for found in _find_runs(name, problems)), key=_find_start)
    for number, run in enumerate(meant, start=1):
        try:
            print(f"{run} is {_refill(run, to).place}", flush=True)
        except StoreAway as away:
            rest = len(meant) - number
            problems[run] = f"{away}{f'. The {rest} runs after it were not tried' if rest else ''}"
            break
        except GnflowError as problem:
            if to is not None and isinstance(problem, UnknownTracker):
                raise
            problems[run] = str(problem)
        except OSError as error:
            problems[run] = f"{run} cannot be read: {error.strerror}"
    if problems:
        raise EnvironmentProblem("\n".join(problems.values()))
    return 0


def _refill(run: Path, to: str | None) -> Tracker:
    workspace = Workspace.find_for_run(run)
    with use_kinds_of(workspace):
        return refill(run, workspace, _choose_tracker(describe(run).spec.get("tracking"), to))


def _choose_tracker(written: object, to: str | None) -> TrackerKind:
    """Return the section of the spec of a run, if it is of the kind `to`; else a section of that kind with defaults."""
    section = written if isinstance(written, Mapping) else {"kind": written}
    kind = to or section.get("kind")
    if kind in (None, "none"):
        return MLFLOW
    known = get_current()
    named = known.find("trackers", str(kind))
    if named is None:
        names = list(known.list_group("trackers"))
        near = find_nearest(str(kind), names)
        raise UnknownTracker(
            f"there is no tracker `{kind}`; "
            + (f"did you mean `{near}`?" if near else f"expected {join_with_or(names)}")
        )
    model = find_class(named)
    assert issubclass(model, TrackerKind)
    try:
        return model.model_validate(section if section.get("kind") == kind else {"kind": kind})
    except ValidationError as error:
        raise EnvironmentProblem(f"the section `tracking` of the run cannot be used: {error}") from None


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
