"""Describe a comparison at the end of schedules. A difference is claimed only if its interval excludes zero."""

from collections.abc import Iterator, Sequence

from gnflow.study import figures
from gnflow.study.arms import Arm
from gnflow.study.budget_verdict import decide_claim, format_interval
from gnflow.study.budgets import Budget, Difference
from gnflow.study.ends import list_unended
from gnflow.study.token_ratio import TokenRatio
from gnflow.study.verdict import describe_tuning, warn_of_unequal_tuning


def describe_ends(
    arms: Sequence[Arm], budgets: Sequence[Budget], reference: str | None, sigma: float | None = None
) -> Iterator[str]:
    """Say what ended where, then compare each arm with the reference in one or two sentences."""
    for label in list_unended(arms):
        yield f"{label} has not come to the end of its schedule: nothing is compared."
    if reference is None:
        return
    trials = {arm.name: arm.trials for arm in arms}
    for budget in budgets:
        paired = {each.other for each in budget.differences}
        for each in budget.differences:
            said = _describe_basis(each, sigma)
            yield _describe_difference(
                reference, budget, each, f"{said}, {describe_tuning(reference, each.other, trials)}"
            )
            yield from _describe_tokens(reference, each.other, each.token_ratio)
        for name in trials.keys() - paired - {reference}:
            yield f"{reference} and {name} have no seed in common: nothing is paired."
    yield from warn_of_unequal_tuning(trials)


def _describe_basis(difference: Difference, sigma: float | None) -> str:
    seeds = figures.format_plural(len(difference.seeds), "seed")
    if difference.interval is None:
        return f"{seeds}: no interval"
    known = "" if sigma is None else f", z-test with sigma {sigma:g}"
    return f"95 % CI {format_interval(difference)}, {seeds}{known}"


def _describe_difference(reference: str, budget: Budget, difference: Difference, basis: str) -> str:
    where = f"at the end of {figures.format_count(budget.amount)} tokens"
    match decide_claim(difference):
        case "undecided":
            return f"It is not decided whether {reference} or {difference.other} has the lower loss {where} ({basis})."
        case "alike":
            return f"{reference} and {difference.other} have about the same loss {where} ({basis})."
        case side:
            amount = f"{abs(difference.mean):.3f}"
            return f"The loss of {reference} is {amount} {side} that of {difference.other} {where} ({basis})."


def _describe_tokens(reference: str, other: str, ratio: TokenRatio | None) -> Iterator[str]:
    if ratio is None or ratio.factor is None:
        return
    ends = ratio.interval
    sure = (
        "1 seed" if ends is None else f"95 % CI {figures.format_ratio(ends.low)} to {figures.format_ratio(ends.high)}"
    )
    yield f"{reference} has the loss of {other} after {figures.format_ratio(ratio.factor)} times the tokens ({sure})."
