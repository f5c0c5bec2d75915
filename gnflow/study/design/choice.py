"""Choose the best trial of an arm, and write it as a spec."""

from math import inf
from pathlib import Path
from typing import NamedTuple

from gnflow.errors import DiskProblem, SpecError
from gnflow.spec.additions import additions
from gnflow.spec.canonical import digest, lines, written
from gnflow.study import figures
from gnflow.study.design.design import ArmDesign, Design, Trial
from gnflow.study.design.draws import Range
from gnflow.study.scores import Score, score_run
from gnflow.train import disk
from gnflow.train.results import COMPLETE, DIVERGED
from gnflow.train.run import Run


class TrialResult(NamedTuple):
    """A finished trial at the lowest target."""

    trial: Trial
    score: Score
    diverged: bool

    @property
    def rank(self) -> tuple[float, bool, float]:
        """The sort key: fewest steps first, then misses by their lowest loss, then diverged trials."""
        steps = self.score.needed["steps"] if self.score.needed else inf
        return steps, self.diverged, inf if self.score.best is None else self.score.best


class Choice(NamedTuple):
    """All trials of an arm, the best first, with remarks about them."""

    tried: tuple[TrialResult, ...]
    remarks: tuple[str, ...]


def choose(design: Design, arm: ArmDesign) -> Choice:
    """Rank the trials. Raises SpecError if there are none, if one has not ended, or if all diverged."""
    if not arm.trials:
        raise SpecError(
            f"arm `{arm.name}` has no trials, so there is nothing to choose; its runs take the spec as it is"
        )
    waiting = {trial.job.label: reason for trial in arm.trials if (reason := _explain_wait(design, arm, trial))}
    if waiting:
        pipeline = design.make_relative(design.folder / "dvc.yaml")
        stages = (f"{pipeline}:trial_{arm.name}_{label.removeprefix('trial_')}" for label in waiting)
        raise SpecError("\n".join([*waiting.values(), f"run: {design.format_repro(*stages)}"]))
    tried = sorted((_score_trial(design, arm, trial) for trial in arm.trials), key=lambda one: one.rank)
    if all(one.diverged for one in tried):
        raise SpecError(
            f"all {len(tried)} trials of arm `{arm.name}` diverged, so there is no best one\n"
            f"give `{'`, `'.join(arm.space)}` smaller values in {design.folder}/study.yaml"
        )
    return Choice(tuple(tried), tuple(_make_remarks(design, arm, tried)))


def write(design: Design, arm: ArmDesign, choice: Choice) -> Path:
    """Write tuned/<arm>.yaml: the spec of the arm with the values of the best trial, and all trials in a comment."""
    path = design.locate_tuned(arm)
    best = choice.tried[0].trial
    tree = additions(arm.spec, [*arm.sets, *best.sets])
    base = Path(*[".."] * len(path.parent.relative_to(design.workspace.root).parts), design.make_relative(arm.spec))
    body = {"extends": base.as_posix(), **tree, "tuning": {"trials": len(choice.tried)}}
    head = [
        f"Written by `gnflow study choose {design.make_relative(design.folder)} {arm.name}`.",
        *_format_trials(choice),
    ]
    head += choice.remarks
    content = [*(f"# {line}".rstrip() for line in head), *lines(body)]
    disk.write(path, ("\n".join(content) + "\n").encode())
    return path


def _explain_wait(design: Design, arm: ArmDesign, trial: Trial) -> str | None:
    """Say why a trial has no result yet."""
    directory, named = design.locate_run(arm, trial.job), f"{trial.job.label} of `{arm.name}`"
    try:
        run = Run.load(directory)
    except SpecError as error:
        return f"{named} has not run: {error}"
    except DiskProblem as error:
        return f"{named} cannot be used: {error}"
    if run.summary.get("status") not in (COMPLETE, DIVERGED):
        return f"{named} has not ended: {directory}"
    if digest(run.experiment) != digest(trial.job.experiment):
        return f"{named} is not what the study asks for, its spec has changed: {directory}"
    return None


def _score_trial(design: Design, arm: ArmDesign, trial: Trial) -> TrialResult:
    run = Run.load(design.locate_run(arm, trial.job))
    found = score_run(run, trial.job.label, design.study.target)
    return TrialResult(trial, found, run.summary.get("status") == DIVERGED)


def _format_trials(choice: Choice) -> list[str]:
    rows = [("trial", *choice.tried[0].trial.values, "steps", "best loss")]
    for one in choice.tried:
        missed = "diverged" if one.diverged else "missed"
        steps = f"{one.score.needed['steps']:.0f}" if one.score.needed else missed
        values = map(written, one.trial.values.values())
        rows.append((one.trial.job.label.removeprefix("trial_"), *values, steps, figures.format_loss(one.score.best)))
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return ["  ".join(f"{cell:>{width}}" for cell, width in zip(row, widths, strict=True)) for row in rows]


def _make_remarks(design: Design, arm: ArmDesign, tried: list[TrialResult]) -> list[str]:
    best, target = tried[0], figures.format_target(design.study.target)
    remarks = [] if best.score.needed else [f"No trial reached {target}."]
    for key, axis in arm.space.items():
        values = [one.trial.values[key] for one in tried]
        numeric = [value for value in values if isinstance(value, int | float)]
        value = best.trial.values[key]
        if isinstance(axis, Range) and len(set(numeric)) > 2 and value in (min(numeric), max(numeric)):
            end = "least" if value == min(numeric) else "largest"
            remarks.append(f"The best `{key}` is the {end} that was tried: a wider range may hold a better one.")
    return remarks
