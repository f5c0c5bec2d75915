"""Describe a comparison at the end of schedules. A difference is claimed only if its interval excludes zero."""

from collections.abc import Iterator, Sequence

from gnflow.study import figures
from gnflow.study.arms import Arm
from gnflow.study.below import describe_below
from gnflow.study.budget_verdict import decide_claim, describe_basis
from gnflow.study.budgets import Budget, Difference
from gnflow.study.ends import count_diverged, list_unended
from gnflow.study.token_ratio import TokenRatio
from gnflow.study.verdict import describe_tuning, warn_of_unequal_tuning


def describe_ends(
    arms: Sequence[Arm], budgets: Sequence[Budget], reference: str | None, sigma: float | None = None
) -> Iterator[str]:
    """Compare each arm with the reference in one or two sentences and with the target in one, if there is a target.

    Then name the runs that have no loss at the end.
    """
    trials = {arm.name: arm.trials for arm in arms}
    mine = str(reference)  # every comparison at a budget has one
    for budget in budgets:
        paired = {each.other for each in budget.differences}
        for each in budget.differences:
            basis = f"{describe_basis(each, sigma)}, {describe_tuning(mine, each.other, trials)}"
            yield _describe_difference(mine, budget, each, basis)
            yield from _describe_tokens(mine, each.other, each.token_ratio)
        for other in budget.arms:
            if other.arm not in paired and other.arm != reference:
                yield f"{reference} and {other.arm} have no seed in common: nothing is paired."
        yield from (describe_below(test, sigma) for test in budget.tests)
    for label in list_unended(arms):
        yield f"{label} has not come to the end of its schedule: nothing is compared."
    yield from _describe_diverged(arms, reference)
    if budgets:
        yield from warn_of_unequal_tuning(trials)


def _describe_diverged(arms: Sequence[Arm], reference: str | None) -> Iterator[str]:
    """Write a sentence for each arm that has a diverged run."""
    for arm in arms:
        if count := count_diverged(arm):
            seeds = "" if len(arm.runs) == 1 else f" with {count} of {len(arm.runs)} seeds"
            so = "nothing is compared to it" if arm.name == reference else "it is left out"
            yield f"{arm.name} diverged{seeds} and has no loss at the end of the budget: {so}."


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
    sure = "1 seed: no interval" if ratio.interval is None else f"95 % CI {figures.format_range(*ratio.interval)}"
    beyond = "; extrapolated by a law, whose error is not included" if ratio.extrapolated else ""
    times = figures.format_ratio(ratio.factor)
    yield f"{reference} has the loss of {other} after {times} times the tokens ({sure}{beyond})."
