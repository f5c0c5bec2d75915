"""The tasks of a study: commands that each make one run, or choose among the trials of an arm.

A task is ready when those that it comes after are done. Whether it is done is read from the disk: a run that has
ended and is what the study asks for, or a choice that would be the same again.
"""

import shlex
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Literal, NamedTuple, TypeAlias

from gnflow.errors import GnflowError
from gnflow.study.design import choice
from gnflow.study.design.design import ArmDesign, Design, Job
from gnflow.train import lock
from gnflow.train.directory import find_differences, is_run
from gnflow.train.results import COMPLETE, DIVERGED
from gnflow.train.run import Run

State: TypeAlias = Literal["done", "running", "ready", "waiting"]


class Task(NamedTuple):
    """One command of a study. It is run in the project root, and may be given again: it resumes, or has nothing to do.

    `job` is its run, None for the choice among the trials of its arm.
    """

    name: str
    """The name of its stage in the pipeline."""
    lines: tuple[str, ...]
    """The shell command, in parts that each fit in a line."""
    after: tuple[str, ...]
    """The names of the tasks that must be done before it."""
    arm: ArmDesign
    job: Job | None = None

    @property
    def command(self) -> str:
        """The shell command."""
        return " ".join(self.lines)

    @property
    def arguments(self) -> list[str]:
        """The command without its first word, `gnflow`."""
        return shlex.split(self.command)[1:]


def list_tasks(design: Design) -> tuple[Task, ...]:
    """Return the tasks of a study, each after those that it depends on."""
    return tuple(task for arm in design.arms for task in _list_of_arm(design, arm))


def list_states(design: Design, tasks: Sequence[Task]) -> Mapping[str, State]:
    """Return the state of each task."""
    states: dict[str, State] = {}
    for task in tasks:
        done = all(states[name] == "done" for name in task.after)
        states[task.name] = find_state(design, task) if done else "waiting"
    return states


def find_state(design: Design, task: Task) -> State:
    """Return the state of a task that need not wait for others."""
    if task.job is None:
        return "done" if _is_chosen(design, task.arm) else "ready"
    if lock.is_held(design.locate_run(task.arm, task.job)):
        return "running"
    return "done" if has_ended(design, task.arm, task.job) else "ready"


def has_ended(design: Design, arm: ArmDesign, job: Job) -> bool:
    """Return whether a run of the study has ended, well or by diverging, and is what the study asks for."""
    directory = design.locate_run(arm, job)
    try:
        if not is_run(directory):
            return False
        expected = design.load_expected(job)
        if expected is None or find_differences(directory, expected):
            return False
        return Run.load(directory).summary.get("status") in (COMPLETE, DIVERGED)
    except (GnflowError, OSError):
        return False


def locate(design: Design, task: Task) -> Path | None:
    """Return the run directory of a task; None for a choice."""
    return None if task.job is None else design.locate_run(task.arm, task.job)


def _is_chosen(design: Design, arm: ArmDesign) -> bool:
    try:
        return design.locate_tuned(arm).read_text() == choice.compose(design, arm, choice.choose(design, arm))
    except (GnflowError, OSError):
        return False


def _list_of_arm(design: Design, arm: ArmDesign) -> Iterator[Task]:
    trials = [
        Task(f"trial_{arm.name}_{trial.job.label.removeprefix('trial_')}", _format_run(design, arm, trial.job), (), arm,
             trial.job)
        for trial in arm.trials
    ]  # fmt: skip
    yield from trials
    before: tuple[str, ...] = ()
    if trials:
        before = (f"choose_{arm.name}",)
        command = f"gnflow study choose {design.make_relative(design.folder)} {arm.name}"
        yield Task(before[0], (command,), tuple(trial.name for trial in trials), arm)
    for job in arm.runs:
        yield Task(f"run_{arm.name}_{job.label}", _format_run(design, arm, job), before, arm, job)


def _format_run(design: Design, arm: ArmDesign, job: Job) -> tuple[str, ...]:
    sets = [f"--set {shlex.quote(text)}" for text in job.sets]
    directory = design.make_relative(design.locate_run(arm, job))
    return (f"gnflow study run {design.make_relative(job.spec)}", *sets, f"--run-dir {directory}")
