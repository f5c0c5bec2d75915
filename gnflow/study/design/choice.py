"""Choose the best trial of an arm, and write it as a spec."""

from collections.abc import Iterator, Sequence
from math import inf
from pathlib import Path
from typing import NamedTuple

from gnflow.errors import DiskProblem, SpecError
from gnflow.spec.additions import collect_additions
from gnflow.spec.canonical import digest, format_lines, format_value
from gnflow.study import figures
from gnflow.study.arms import list_held_out_losses
from gnflow.study.design.design import ArmDesign, Design, Trial
from gnflow.study.design.edges import Edge, describe_edges, find_edges
from gnflow.study.scores import score_run
from gnflow.train import disk
from gnflow.train.results import COMPLETE, DIVERGED
from gnflow.train.run import Run


class TrialResult(NamedTuple):
    """A finished trial at the target of the tuning or, in a study with a budget, at its end."""

    trial: Trial
    steps: float | None
    """Number of steps to the target; None if it was missed or if there is none."""
    loss: float | None
    """The lowest held-out loss; in a study with a budget, the last one."""
    diverged: bool

    @property
    def rank(self) -> tuple[float, bool, float]:
        """The sort key: fewest steps first, then by loss, and diverged trials last."""
        return inf if self.steps is None else self.steps, self.diverged, inf if self.loss is None else self.loss


class Choice(NamedTuple):
    """All trials of an arm, the best first, with remarks about them."""

    tried: tuple[TrialResult, ...]
    edges: tuple[Edge, ...]
    """Keys whose best value is the least or the largest that was tried."""
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
    edges = find_edges(arm.space, tried[0].trial.values, [one.trial.values for one in tried])
    return Choice(tuple(tried), tuple(edges), tuple(_make_remarks(design, arm, tried, edges)))


def write(design: Design, arm: ArmDesign, choice: Choice) -> Path:
    """Write tuned/<arm>.yaml: the spec of the arm with the values of the best trial, and all trials in a comment."""
    path = design.locate_tuned(arm)
    disk.write(path, compose(design, arm, choice).encode())
    return path


def compose(design: Design, arm: ArmDesign, choice: Choice) -> str:
    """Return the text of tuned/<arm>.yaml."""
    path = design.locate_tuned(arm)
    best = choice.tried[0].trial
    tree = collect_additions(arm.spec, [*arm.sets, *best.sets])
    base = Path(*[".."] * len(path.parent.relative_to(design.workspace.root).parts), design.make_relative(arm.spec))
    body = {"extends": base.as_posix(), **tree, "tuning": {"trials": len(choice.tried)}}
    head = [
        f"Written by `gnflow study choose {design.make_relative(design.folder)} {arm.name}`.",
        *_format_trials(choice, design.study.target is not None),
    ]
    head += choice.remarks
    content = [*(f"# {line}".rstrip() for line in head), *format_lines(body)]
    return "\n".join(content) + "\n"


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
    diverged, target = run.summary.get("status") == DIVERGED, design.find_trial_target(arm)
    if target is None:
        losses = [loss for _, loss in list_held_out_losses(run)]
        return TrialResult(trial, None, losses[-1] if losses else None, diverged)
    found = score_run(run, trial.job.label, target)
    return TrialResult(trial, found.needed["steps"] if found.needed else None, found.best, diverged)


def _format_trials(choice: Choice, aimed: bool) -> list[str]:
    rows = [("trial", *choice.tried[0].trial.values, *(("steps", "best loss") if aimed else ("last loss",)))]
    for one in choice.tried:
        ended = "diverged" if one.diverged else "missed"
        steps = ended if one.steps is None else f"{one.steps:.0f}"
        loss = figures.format_loss(one.loss)
        result = (steps, loss) if aimed else ("diverged" if one.diverged else loss,)
        rows.append(
            (one.trial.job.label.removeprefix("trial_"), *map(format_value, one.trial.values.values()), *result)
        )
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return ["  ".join(f"{cell:>{width}}" for cell, width in zip(row, widths, strict=True)) for row in rows]


def _make_remarks(design: Design, arm: ArmDesign, tried: list[TrialResult], edges: Sequence[Edge]) -> Iterator[str]:
    target = design.find_trial_target(arm)
    if target is not None and tried[0].steps is None:
        yield f"No trial reached {figures.format_target(target)}."
    elif target is not None and target != design.study.target:
        yield f"Steps are those to {figures.format_target(target)}, where trials stop."
    yield from describe_edges(edges)
    if arm.added:
        yield f"{figures.format_plural(arm.added, 'trial')} of these {len(tried)} lie beyond the ranges of study.yaml."
