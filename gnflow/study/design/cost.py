"""Estimate what a study costs at most, if every run takes all of its steps."""

import json
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from gnflow.compiler.plan import Plan, plan
from gnflow.study import figures
from gnflow.study.design.design import ArmDesign, Design
from gnflow.study.design.tasks import has_ended
from gnflow.study.speed import find_pass_flops, measure_speed

OVER = 1.02  # a run may be a part of a step longer than its budget


class Cost(NamedTuple):
    """The cost of one arm, or of all arms."""

    arm: str
    trials: int
    runs: int
    done: int
    """Number of trials and runs that have ended."""
    steps: int
    """Optimizer steps of all trials and runs together. The other costs are sums as well."""
    tokens: float
    flops: float
    seconds: float | None
    """Seconds of training and evaluation, at the speed of runs of this project with passes of about the same size.

    None if no such run has ended."""


def estimate_costs(design: Design) -> list[Cost]:
    """Estimate the cost of each arm."""
    return [_estimate_cost(design, arm) for arm in design.arms]


def add_costs(rows: list[Cost]) -> Cost:
    """Sum up the costs of all arms."""
    seconds = [row.seconds for row in rows if row.seconds is not None]
    return Cost(
        "all",
        sum(row.trials for row in rows),
        sum(row.runs for row in rows),
        sum(row.done for row in rows),
        sum(row.steps for row in rows),
        sum(row.tokens for row in rows),
        sum(row.flops for row in rows),
        sum(seconds) if len(seconds) == len(rows) else None,
    )


def list_remarks(design: Design) -> list[str]:
    """Point out weaknesses of the comparison that can be seen from the study file."""
    said = []
    trials = {arm.name: _count_trials(arm) for arm in design.arms}
    if len(set(trials.values())) > 1:
        numbers = ", ".join(f"{name} {count}" for name, count in trials.items())
        said.append(f"the arms are not tuned equally (trials: {numbers})")
    said += _compare_trial_targets(design)
    for arm in design.arms:
        budget = design.study.find_budget(arm.scale)
        if budget is not None and "training.steps" in arm.space:
            jobs = [trial.job for trial in arm.trials]
            one = plan(max(jobs, key=lambda job: job.experiment.training.steps or 0).experiment)
            if (tokens := one.steps * (one.tokens_solve + one.tokens_search)) > OVER * budget:
                said.append(
                    f"a trial of {arm.name} takes {figures.format_count(tokens)} tokens, more than the budget of "
                    f"{figures.format_count(budget)}: give `training.steps` a lower end"
                )
    seeds = {arm.tuning.seed for arm in design.arms if arm.tuning}
    if both := seeds & set(design.study.seeds):
        said.append(
            f"seed {min(both)} is one that values are tuned on: its runs will flatter the arms that profit most"
        )
    return said


def _compare_trial_targets(design: Design) -> Iterator[str]:
    """Say if trials stop at unequal targets, or at a loss that is not as low as that of the runs."""
    wanted = {arm.name: design.find_trial_target(arm) for arm in design.arms if arm.tuning}
    found = {name: target for name, target in wanted.items() if target is not None}
    if len(set(found.values())) > 1:
        numbers = ", ".join(f"{name} {figures.format_target(target)}" for name, target in found.items())
        yield f"the arms are not tuned to one target ({numbers})"
    for name, target in found.items():
        if (aim := design.study.target) is not None and target > aim:
            yield (
                f"trials of {name} stop at {figures.format_target(target)}, before the runs do at "
                f"{figures.format_target(aim)}: give `tuning.target` a lower value"
            )


def _count_trials(arm: ArmDesign) -> int:
    """Count the trials behind the values of an arm: those of this study, or else those that its spec records."""
    return len(arm.trials) or arm.runs[0].experiment.tuning.trials


def _estimate_cost(design: Design, arm: ArmDesign) -> Cost:
    planned: dict[str, Plan] = {}
    steps = tokens = flops = evaluation = 0.0
    for job in arm.jobs:
        shape = json.dumps(_strip_spec(job.experiment.model_dump(mode="json")))
        if shape not in planned:
            planned[shape] = plan(job.experiment)
        one = planned[shape]
        steps += one.steps
        tokens += one.steps * (one.tokens_solve + one.tokens_search)
        flops += one.steps * one.flops
        evaluation += one.evaluation.flops
    largest = max(planned.values(), key=lambda one: one.flops)
    size = find_pass_flops(cost.flops for cost in largest.regions.values())
    rate = measure_speed(design.workspace.runs, largest.device, size)
    done = sum(has_ended(design, arm, job) for job in arm.jobs)
    return Cost(
        arm.name,
        len(arm.trials),
        len(arm.runs),
        done,
        int(steps),
        tokens,
        flops,
        (flops + evaluation) / rate if rate else None,
    )


def _strip_spec(tree: object) -> object:
    """Return the part of a spec that its cost depends on, without learning rates, other fractions and the seed."""
    if isinstance(tree, Mapping):
        return {
            key: _strip_spec(value) for key, value in tree.items() if key != "seed" and not isinstance(value, float)
        }
    return [_strip_spec(value) for value in tree] if isinstance(tree, list) else tree
