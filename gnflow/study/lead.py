"""The answer of a comparison in one sentence, however many arms there are."""

from collections.abc import Sequence
from math import isfinite

from gnflow.study import budget_verdict, claims, figures
from gnflow.study.budgets import Budget, choose_headline
from gnflow.study.comparison import Comparison
from gnflow.study.ratios import Estimate
from gnflow.study.results import Result
from gnflow.study.scores import WORDS

OTHER_AXES = ("tokens", "flops")  # the costs that are named beside steps


def tell_answer(comparison: Comparison) -> str:
    """Say which arm is best, by how much, and how sure that is."""
    if comparison.budgets:
        return _tell_budget(comparison)
    if not comparison.targets:
        return comparison.verdict[-1] if comparison.verdict else "Nothing is compared."
    target = next((result.target for result in reversed(comparison.results) if result.reached), None)
    if target is None:
        return f"No run has reached {figures.format_target(comparison.targets[-1])}."
    missed = comparison.headline is not None and target != comparison.headline
    before = f"No run has reached {figures.format_target(comparison.headline or target)}. " if missed else ""
    return before + _tell_target(comparison, target)


def _tell_target(comparison: Comparison, target: float) -> str:
    results = sorted(comparison.select_results(target), key=lambda result: result.median["steps"])
    best, where = results[0], figures.format_target(target)
    if not isfinite(best.median["steps"]):
        return f"Most seeds of every arm missed {where}."
    if len(results) == 1:
        return (
            f"{best.arm} reaches {where} in {_format_steps(best)} ({figures.format_plural(len(best.scores), 'seed')})."
        )
    ratios = {ratio.other: ratio for ratio in comparison.ratios if ratio.target == target}
    reference = str(comparison.reference)
    rival = results[1].arm if best.arm == reference else best.arm
    axes = ratios[rival].axes if rival in ratios else {}
    steps = axes.get("steps")
    if steps is None:
        return f"{best.arm} reaches {where} in the fewest steps, {_format_steps(best)}; nothing is paired by seed."
    seeds = figures.format_plural(len(ratios[rival].seeds), "seed")
    found = claims.format_interval(steps) if steps.interval else ""
    found = found if found.startswith("the same") else f"95 % CI {found}"
    sure = f"{found}, {seeds}" if steps.interval else f"{seeds}: no interval"
    decided = claims.decide_claim(steps) in ("fewer", "alike")
    said = _describe_pair(reference, rival, steps, where, sure, len(results))
    costs = [cost for axis in OTHER_AXES if axis in axes and (cost := _describe_cost(axis, axes[axis]))]
    beside = f", and {figures.join_words(costs)}" if costs and best.arm == reference and decided else ""
    return (
        f"{said}{beside}.{_count_decided(results, [ratio.axes.get('steps') for ratio in ratios.values()], reference)}"
    )


def _describe_pair(reference: str, rival: str, steps: Estimate, where: str, sure: str, arms: int) -> str:
    among = f"Of {arms} arms, " if arms > 2 else ""
    match claims.decide_claim(steps):
        case "undecided":
            return f"It is not decided whether {reference} or {rival} needs the fewest steps to {where} ({sure})"
        case "alike":
            return f"{among}{reference} and {rival} need about equally few steps to {where} ({sure})"
        case claimed:
            least = "" if steps.bound == "exact" else "at least "
            factor = f"{least}{claims.format_factor(steps)}"
            if arms == 2:
                return f"{reference} needs {factor} {claimed} steps than {rival} to {where} ({sure})"
            if claimed == "more":
                return f"{among}{rival} needs the fewest steps to {where}, {factor} fewer than {reference} ({sure})"
            return (
                f"{among}{reference} needs the fewest steps to {where}, {factor} fewer than {rival}, the next ({sure})"
            )


def _describe_cost(axis: str, estimate: Estimate) -> str:
    """Describe the ratio on another axis; empty if it is not decided."""
    match claims.decide_claim(estimate):
        case "alike":
            return f"about as many {WORDS[axis]}"
        case "undecided":
            return ""
        case claimed:
            return f"{claims.format_factor(estimate)} {claimed} {WORDS[axis]}"


def _count_decided(results: Sequence[Result], estimates: Sequence[Estimate | None], reference: str) -> str:
    """Count the other arms that certainly need more or fewer steps than the reference."""
    if len(results) < 4:
        return ""
    decided = [claims.decide_claim(estimate) for estimate in estimates if estimate and estimate.interval]
    if not decided:
        return ""
    worse, better = decided.count("fewer"), decided.count("more")
    others = len(results) - 1
    fewer = f", {better} certainly fewer" if better else ""
    return f" {worse} of the other {others} certainly need more than {reference}{fewer}."


def _format_steps(result: Result) -> str:
    return figures.format_plural(result.median["steps"], "step")


def _tell_budget(comparison: Comparison) -> str:
    axis = choose_headline([budget.axis for budget in comparison.budgets])
    budget = next(each for each in comparison.budgets if each.axis == axis)
    ranked = sorted(budget.arms, key=lambda arm: arm.median)
    best, reference = ranked[0].arm, str(comparison.reference)
    where = _describe_budget(comparison, budget)
    if len(ranked) == 1:
        return f"{best} has a held-out loss of {figures.format_loss(ranked[0].median)} {where}."
    rival = ranked[1].arm if best == reference else best
    difference = next((each for each in budget.differences if each.other == rival), None)
    if difference is None:
        return f"{best} has the lowest loss {where}; nothing is paired by seed."
    seeds = figures.format_plural(len(difference.seeds), "seed")
    sure = (
        f"95 % CI {budget_verdict.format_interval(difference)}, {seeds}"
        if difference.interval
        else f"{seeds}: no interval"
    )
    among = f"Of {len(ranked)} arms, " if len(ranked) > 2 else ""
    match budget_verdict.decide_claim(difference):
        case "undecided":
            return f"It is not decided whether {reference} or {rival} has the lowest loss {where} ({sure})."
        case "alike":
            return f"{among}{reference} and {rival} have about the same lowest loss {where} ({sure})."
        case _:
            worse = reference if best != reference else rival
            amount = f"{abs(difference.mean):.3f} nats below {worse}"
            return f"{among}{best} has the lowest loss {where}, {amount} ({sure})."


def _describe_budget(comparison: Comparison, budget: Budget) -> str:
    amount = figures.format_budget(budget.axis, budget.amount)
    unit = "" if budget.axis == "seconds" else f" {WORDS[budget.axis]}"
    return f"at the end of {amount}{unit}" if comparison.ended else f"at {amount}{unit}"
