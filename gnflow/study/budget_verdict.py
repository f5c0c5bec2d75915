"""Describe a comparison at equal budgets. A difference is claimed only if its interval excludes zero."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Literal

from gnflow.study import figures
from gnflow.study.arms import Arm
from gnflow.study.budgets import Budget, Difference, choose_headline, list_unusable
from gnflow.study.scores import WORDS, select_numbers
from gnflow.study.verdict import describe_tuning, warn_of_unequal_tuning
from gnflow.track.description import flatten

SAME = 0.005  # nats; a smaller difference counts as none
COARSE = 0.9  # fraction of a budget; an evaluation that had cost less says little about the budget
DECAYING = ("cosine", "global_cosine", "inner_cosine")  # schedules that depend on the end of the run
Claim = Literal["below", "above", "alike", "undecided"]


def describe_budgets(arms: Sequence[Arm], budgets: Sequence[Budget], reference: str | None) -> Iterator[str]:
    """Say how arms are compared, then describe each arm other than the reference in one or two sentences."""
    own = sorted({target.at_most for arm in arms for run in arm.runs if (target := run.experiment.training.target)})
    aims = f" ({figures.join_words([figures.format_target(value) for value in own])} are their own)" if own else ""
    if len(arms) > 1 or not budgets:
        yield (
            f"The runs have no target in common{aims}, so their held-out losses are compared at equal budgets; "
            "`--target` compares what each needed to reach one."
        )
    for label in list_unusable(arms):
        yield f"{label} has no evaluation after its first step: nothing is compared."
    if reference is None or not budgets:
        return
    trials = {arm.name: arm.trials for arm in arms}
    for other in (arm.name for arm in arms if arm.name != reference):
        found = {
            budget.axis: (budget, each) for budget in budgets for each in budget.differences if each.other == other
        }
        if not found:
            yield f"{reference} and {other} have no seed in common: nothing is paired."
            continue
        yield _describe_first_axis(reference, *found[choose_headline(found)], trials)
        yield from _describe_other_axes(
            {axis: each for axis, (_, each) in found.items() if axis != choose_headline(found)}
        )
    yield from warn_of_unequal_tuning(trials)


def warn_of_budgets(arms: Sequence[Arm], budgets: Sequence[Budget]) -> Iterator[str]:
    """Warn of reasons why the loss at a budget may be misleading."""
    for arm in arms:
        found = {WORDS[b.axis]: (b.amount, reached) for b in budgets for reached in b.arms if reached.arm == arm.name}
        coarse = [axis for axis, (amount, reached) in found.items() if min(reached.spent.values()) < COARSE * amount]
        if coarse:
            yield (
                f"the last evaluation of {arm.name} within the budget of {figures.join_words(coarse)} had cost less "
                f"than {COARSE:.0%} of it"
            )
        planned = select_numbers(arm.runs[0].plan).get("steps", 0)
        early = [axis for axis, (_, reached) in found.items() if min(reached.steps.values()) < COARSE * planned]
        if early and _has_decay(arm):
            yield (
                f"the learning rate of {arm.name} has not decayed yet at the budget of {figures.join_words(early)}: "
                "a run planned for that budget would end lower"
            )


def decide_claim(difference: Difference) -> Claim:
    """Decide whether the reference's loss is below or above. With one seed only the difference itself decides."""
    low, high = difference.interval or (difference.mean, difference.mean)
    if low > -SAME and high < SAME:
        return "alike"
    return "below" if low > 0 else "above" if high < 0 else "undecided"


def format_interval(difference: Difference) -> str:
    """Format an interval: `0.100 to 0.150` for a claim, `0.020 above to 0.040 below` otherwise. Needs two seeds."""
    low, high = difference.interval or (difference.mean, difference.mean)
    match decide_claim(difference):
        case "below":
            return f"{low:.3f} to {high:.3f}"
        case "above":
            return f"{-high:.3f} to {-low:.3f}"
        case _:
            return f"{_format_end(low)} to {_format_end(high)}"


def describe_basis(difference: Difference, sigma: float | None = None) -> str:
    """Say how sure a difference is: `95 % CI 0.100 to 0.150, 3 seeds`; `sigma` is the spread of a z-test."""
    seeds = figures.format_plural(len(difference.seeds), "seed")
    if difference.interval is None:
        return f"{seeds}: no interval"
    known = "" if sigma is None else f", z-test with sigma {sigma:g}"
    return f"95 % CI {format_interval(difference)}, {seeds}{known}"


def _format_end(end: float) -> str:
    return f"{abs(end):.3f} {'below' if end > 0 else 'above'}"


def _describe_first_axis(reference: str, budget: Budget, difference: Difference, trials: Mapping[str, int]) -> str:
    where = f"at {figures.format_budget(budget.axis, budget.amount)}" + (
        "" if budget.axis == "seconds" else f" {WORDS[budget.axis]}"
    )
    seeds, tuned = len(difference.seeds), describe_tuning(reference, difference.other, trials)
    basis = describe_basis(difference)
    match decide_claim(difference):
        case "undecided":
            return (
                f"{seeds} seeds do not decide whether {reference} or {difference.other} has the lower loss {where} "
                f"({basis}, {tuned})."
            )
        case "alike":
            return f"{reference} and {difference.other} have about the same loss {where} ({basis}, {tuned})."
        case side:
            amount = f"{abs(difference.mean):.3f}"
            return f"The loss of {reference} is {amount} {side} that of {difference.other} {where} ({basis}, {tuned})."


def _describe_other_axes(differences: Mapping[str, Difference]) -> Iterator[str]:
    """Describe the other axes in one sentence."""
    said: dict[Claim, list[str]] = {"below": [], "above": [], "alike": [], "undecided": []}
    for axis, each in differences.items():
        claimed = decide_claim(each)
        amount = f"{abs(each.mean):.3f} {claimed} at equal " if claimed in ("below", "above") else ""
        said[claimed].append(f"{amount}{WORDS[axis]}{f' ({format_interval(each)})' if each.interval else ''}")
    clauses = [f"it is {figures.join_words(said['below'] + said['above'])}"] if said["below"] or said["above"] else []
    clauses += [f"about the same at equal {figures.join_words(said['alike'])}"] if said["alike"] else []
    clauses += [f"not decided at equal {figures.join_words(said['undecided'])}"] if said["undecided"] else []
    sentence = "; ".join(clauses)
    if sentence:
        yield f"{sentence[0].upper()}{sentence[1:]}."


def _has_decay(arm: Arm) -> bool:
    spec = arm.runs[0].experiment.optimizer.model_dump(mode="json")
    return any(key.endswith("schedule.kind") and value in DECAYING for key, value in flatten(spec))
