"""The design of a study: the runs of every arm, and the places of their files and results."""

from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from gnflow.errors import SpecError
from gnflow.spec.experiment import Experiment
from gnflow.spec.load import load
from gnflow.spec.study import Study, Tuning
from gnflow.spec.suggest import find_nearest
from gnflow.spec.tree import Plain
from gnflow.study.design.draws import Axis
from gnflow.workspace import Workspace


class Job(NamedTuple):
    """One run of a study: a spec with overrides."""

    label: str
    """The name of its directory, such as `seed_1` or `trial_3`."""
    spec: Path
    sets: tuple[str, ...]
    experiment: Experiment
    """The experiment of the run; for a tuned arm, without the values that are still to be chosen."""


class Trial(NamedTuple):
    """A run with values that were drawn from the space."""

    job: Job
    values: dict[str, Plain]
    """The drawn values, by dotted key."""
    sets: tuple[str, ...]
    """The same values in the form `key=value`."""


@dataclass(frozen=True)
class ArmDesign:
    """One arm and its runs."""

    name: str
    spec: Path
    files: tuple[Path, ...]
    """The spec and all files that it extends."""
    sets: tuple[str, ...]
    """The overrides that all its runs share: its own, those of the study, and the target."""
    tuning: Tuning | None
    """The tuning of the arm; None if it runs as it is."""
    space: dict[str, Axis]
    trials: tuple[Trial, ...]
    runs: tuple[Job, ...]
    method: str
    """The arm in the study file; with several scales there is one of these designs at each."""
    scale: str | None = None
    added: int = 0
    """Number of trials, the last ones, that `gnflow study widen` added beyond the space."""

    @property
    def jobs(self) -> tuple[Job, ...]:
        """The jobs of all trials and all runs."""
        return (*(trial.job for trial in self.trials), *self.runs)


@dataclass(frozen=True)
class Design:
    """A study file with all of its arms worked out."""

    study: Study
    path: Path
    """The path of the study file."""
    workspace: Workspace
    arms: tuple[ArmDesign, ...]

    @property
    def folder(self) -> Path:
        """The folder of the study file, its pipeline and its results."""
        return self.path.parent

    def find_arm(self, name: str) -> ArmDesign:
        """Return the arm of this name. Raises SpecError with the most similar name."""
        names = [arm.name for arm in self.arms]
        if name not in names:
            near = find_nearest(name, names)
            hint = f"did you mean `{near}`?" if near else f"its arms are {', '.join(names)}"
            raise SpecError(f"study `{self.study.name}` has no arm `{name}`; {hint}")
        return self.arms[names.index(name)]

    def locate_run(self, arm: ArmDesign, job: Job) -> Path:
        """Return the run directory of a job."""
        return self.workspace.runs / self.study.name / arm.name / job.label

    def locate_tuned(self, arm: ArmDesign) -> Path:
        """Return the path of the spec that holds the chosen values of an arm with trials."""
        return self.folder / "tuned" / f"{arm.name}.yaml"

    def load_expected(self, job: Job) -> Experiment | None:
        """Return the experiment of a job; None before the values of its arm are chosen.

        Raises SpecProblems for a bad tuned spec.
        """
        if job.spec.parent != self.folder / "tuned":
            return job.experiment
        return load(job.spec, job.sets).experiment if job.spec.is_file() else None

    def format_repro(self, *targets: str) -> str:
        """Return the command that brings pipelines or stages up to date, to be run in the project root."""
        return f"{'' if self.workspace.can_reproduce else 'gnflow init && '}dvc repro {' '.join(targets)}"

    def select_arms(self, scale: str | None) -> tuple[ArmDesign, ...]:
        """Return the arms at one scale; None is the only one of a study without scales."""
        return tuple(arm for arm in self.arms if arm.scale == scale)

    @property
    def scales(self) -> tuple[str | None, ...]:
        """The names of the scales; None alone if there is only one."""
        return tuple(scale.name for scale in self.study.scales) or (None,)

    def find_trial_target(self, arm: ArmDesign) -> float | None:
        """Return the loss to which the trials of an arm are counted; None in a study with a budget."""
        own = arm.tuning.target if arm.tuning else None
        return self.study.target if own is None else own

    def find_reference(self, scale: str | None) -> str | None:
        """Return the name of the reference at a scale, if the study names one."""
        return next((arm.name for arm in self.select_arms(scale) if arm.method == self.study.reference), None)

    def make_relative(self, path: Path) -> str:
        """Return a path relative to the project root, as commands there name it."""
        return path.relative_to(self.workspace.root).as_posix()
