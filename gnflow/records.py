"""What a run records at each step, and the base of the trackers that show its records somewhere else."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple, TypeAlias

Status: TypeAlias = Literal["FINISHED", "KILLED", "FAILED"]
"""How a run ended: at its end, stopped by its user or its machine, or with an error or a divergence."""


@dataclass(frozen=True)
class Step:
    """The values of one completed step; step 0 holds the evaluation of the starting weights."""

    step: int
    time: float
    """Unix seconds."""
    values: Mapping[str, float]


class TrackedRun(NamedTuple):
    """The run that a tracker is opened for."""

    directory: Path
    root: Path
    """The root of the project."""
    identity: str
    """32 characters that name this run, wherever its directory is."""
    title: str
    """A name for people: that of the directory, or the path inside a study."""
    spec: Mapping[str, object]
    """The resolved spec."""
    began: float
    """Time of the first record, in Unix seconds."""
    running: bool
    """Whether the run goes on. Otherwise a stored run is shown again."""


class Incomplete(Exception):
    """Everything was taken but some files, for the reason that is the argument."""


class Tracker:
    """The base of what the factory of a tracker returns: an object that is told the steps of one run.

    A tracker is opened when a run begins or continues, after each of its errors, and by `gnflow track`. Each time it is
    told all steps from the first, unless it has set `position`. So a factory begins anew, and overwrites what an
    earlier tracker of the same run has left. Whatever its methods raise is reported and never ends training.
    """

    place = ""
    """The place where the run is shown, such as `in runs/a/tensorboard`. It ends the sentence `<run> is <place>`."""
    position = 0
    """How much of the journal was told, in bytes. gnflow advances it."""

    def send(self, steps: Sequence[Step]) -> None:
        """Show these steps. A step with an earlier number than the last one replaces it and all later ones."""
        raise NotImplementedError

    def remember(self) -> None:
        """Store `position`, if the next tracker of this run should go on there. Called after every `send`."""

    def refresh(self) -> None:
        """Show what else there is in the directory of the run. Called about once a second while it grows."""

    def take_samples(self, samples: Sequence[object]) -> None:
        """Take samples of the load of the machine. Only a kind that says `measures` is given any."""

    def finish(self, status: Status, ended: float) -> None:
        """Show how and when (in Unix seconds) the run ended; raise Incomplete if files are missing. No call follows."""

    def abandon(self) -> None:
        """Show that the directory of the run is gone. No call follows."""
