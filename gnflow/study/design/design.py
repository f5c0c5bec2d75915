"""A study with everything worked out: the runs of every arm, and where they and what comes of them are."""

from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from gnflow.errors import SpecError
from gnflow.spec.experiment import Experiment
from gnflow.spec.load import load
from gnflow.spec.study import Study, Tuning
from gnflow.spec.suggest import nearest
from gnflow.spec.tree import Plain
from gnflow.study.design.draws import Axis
from gnflow.workspace import Workspace


class Job(NamedTuple):
    """One run of a study: a spec with overrides."""

    label: str
    """`seed_1` or `trial_3`, the name of its directory."""
    spec: Path
    sets: tuple[str, ...]
    experiment: Experiment
    """What is run; for a run of a tuned arm, what is run but for the values that are chosen."""


class Trial(NamedTuple):
    """A run with drawn values."""

    job: Job
    values: dict[str, Plain]
    """By dotted key."""
    sets: tuple[str, ...]
    """The same as `key=value`."""


@dataclass(frozen=True)
class ArmDesign:
    """One arm and its runs."""

    name: str
    spec: Path
    files: tuple[Path, ...]
    """The spec and all that it extends."""
    sets: tuple[str, ...]
    """What all its runs have in common: its overrides, those of the study, and the target."""
    tuning: Tuning | None
    """None for an arm that runs as it is."""
    space: dict[str, Axis]
    trials: tuple[Trial, ...]
    runs: tuple[Job, ...]

    @property
    def jobs(self) -> tuple[Job, ...]:
        """Trials and runs."""
        return (*(trial.job for trial in self.trials), *self.runs)


@dataclass(frozen=True)
class Design:
    """A study file, worked out."""

    study: Study
    path: Path
    """The study file."""
    workspace: Workspace
    arms: tuple[ArmDesign, ...]

    @property
    def folder(self) -> Path:
        """Where the study file, its pipeline and its results are."""
        return self.path.parent

    def arm(self, name: str) -> ArmDesign:
        """Raises SpecError with the nearest name."""
        names = [arm.name for arm in self.arms]
        if name not in names:
            near = nearest(name, names)
            hint = f"did you mean `{near}`?" if near else f"its arms are {', '.join(names)}"
            raise SpecError(f"study `{self.study.name}` has no arm `{name}`; {hint}")
        return self.arms[names.index(name)]

    def directory(self, arm: ArmDesign, job: Job) -> Path:
        """The run directory of a job."""
        return self.workspace.runs / self.study.name / arm.name / job.label

    def tuned(self, arm: ArmDesign) -> Path:
        """The spec that gets the chosen values of an arm with trials."""
        return self.folder / "tuned" / f"{arm.name}.yaml"

    def expected(self, job: Job) -> Experiment | None:
        """What a job is to run; None before the values of its arm are chosen. Raises SpecProblems."""
        if job.spec.parent != self.folder / "tuned":
            return job.experiment
        return load(job.spec, job.sets).experiment if job.spec.is_file() else None

    def reproduce(self, *targets: str) -> str:
        """The command, in the project root, that brings pipelines or stages up to date."""
        return f"{'' if self.workspace.reproducible else 'gnflow init && '}dvc repro {' '.join(targets)}"

    def relative(self, path: Path) -> str:
        """A path as commands in the project root name it."""
        return path.relative_to(self.workspace.root).as_posix()
