"""Open the tracker of a run, and tell it what is in the journal."""

import json
import socket
from pathlib import Path

from gnflow.errors import EnvironmentProblem, walk_causes
from gnflow.records import Incomplete, TrackedRun, Tracker
from gnflow.secrets import hide_secrets
from gnflow.spec.factory import call_factory, check_needs
from gnflow.spec.tracking import Mlflow, TrackerKind
from gnflow.track import description, location, tail
from gnflow.train.journal import JOURNAL, compute_identity, read_first_line
from gnflow.workspace import Workspace

MLFLOW = Mlflow()
AWAY = (ConnectionError, TimeoutError, socket.gaierror)
LONGEST_REASON = 500  # characters
# MLflow's codes for errors that stay until the user changes something.
HOPELESS = {"PERMISSION_DENIED", "UNAUTHENTICATED", "CUSTOMER_UNAUTHORIZED", "ENDPOINT_NOT_FOUND"}


class StoreAway(EnvironmentProblem):
    """An error that means that the store does not answer, for any run."""


def describe_place(tracking: TrackerKind, workspace: Workspace) -> str:
    """Return the subject of a sentence about a tracker."""
    if isinstance(tracking, Mlflow):
        return f"MLflow at {hide_secrets(location.find_tracking_uri(workspace))}"
    return f"The tracker `{tracking.kind}`"


def read_identity(directory: Path) -> str | None:
    """Return the identity of the run in a directory; None while its journal has no line."""
    line = read_first_line(directory / JOURNAL)
    return None if line is None else compute_identity(line)


def open_tracker(directory: Path, workspace: Workspace, tracking: TrackerKind, *, running: bool) -> Tracker:
    """Open the tracker of a run whose journal has a line. Raises whatever the factory of the tracker raises."""
    line = read_first_line(directory / JOURNAL)
    if line is None:
        raise EnvironmentProblem(f"There is nothing to mirror: {directory / JOURNAL} has no record yet.")
    about = description.describe(directory)
    run = TrackedRun(
        directory,
        workspace.root,
        compute_identity(line),
        about.title,
        about.spec,
        float(json.loads(line)["time"]),
        running,
    )
    return call_factory(tracking, Tracker, tracking, run)


def advance(tracker: Tracker, directory: Path) -> bool:
    """Tell the tracker the next part of the journal. Return False if there is none."""
    chunk = tail.read(directory, tracker.position)
    if chunk.position == tracker.position:
        return False
    tracker.send(chunk.steps)
    tracker.position = chunk.position
    tracker.remember()
    return True


def refill(directory: Path, workspace: Workspace, tracking: TrackerKind = MLFLOW) -> Tracker:
    """Tell a tracker everything that it lacks of a run directory.

    MLflow is sent everything again if the file `mlflow.json` is not in the directory, which changes nothing that it
    has. Raises EnvironmentProblem if there is nothing to show, or no store.
    """
    check_needs(tracking, workspace.root)
    location.settle_environment()
    try:
        tracker = open_tracker(directory, workspace, tracking, running=False)
        while advance(tracker, directory):
            pass
        tracker.finish(description.read_status(directory, "KILLED"), tail.read_span(directory)[1])
    except EnvironmentProblem as problem:
        raise EnvironmentProblem(f"{directory} cannot be mirrored: {problem}") from problem
    except Exception as error:
        cause = error.__cause__ if isinstance(error, Incomplete) and error.__cause__ else error
        kind = StoreAway if any(isinstance(each, AWAY) for each in walk_causes(cause)) else EnvironmentProblem
        place = describe_place(tracking, workspace)
        raise kind(f"{place} did not accept {directory}: {find_reason(error)}") from error
    return tracker


def is_hopeless(error: Exception) -> bool:
    """Return whether the same attempt would fail again until the user changes something."""
    return isinstance(error, EnvironmentProblem | ImportError) or getattr(error, "error_code", None) in HOPELESS


def find_reason(error: BaseException) -> str:
    """Return the innermost error of the operating system or, if there is none, the first line of the error."""
    if isinstance(error, Incomplete) and error.__cause__:
        error = error.__cause__
    found = ""
    for cause in walk_causes(error):
        if isinstance(cause, OSError):
            found = cause.strerror or str(cause)
    found = found or (str(error).strip() or type(error).__name__).splitlines()[0]
    return hide_secrets(found)[:LONGEST_REASON].rstrip(": .")
