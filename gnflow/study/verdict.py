"""Describe a comparison in words."""

from collections.abc import Callable, Iterator, Mapping, Sequence

from gnflow.study import figures
from gnflow.study.arms import Arm
from gnflow.study.claims import decide_claim, format_factor, format_interval
from gnflow.study.ratios import Estimate, Ratio
from gnflow.study.results import Result
from gnflow.study.scores import WORDS

Trials = Mapping[str, int]


def describe_comparison(arms: Sequence[Arm], results: Sequence[Result], ratios: Sequence[Ratio]) -> Iterator[str]:
    """Write sentences about the lowest target or, if no run reached it, about the lowest one that was reached."""
    headline = results[-1].target
    target = next((result.target for result in reversed(results) if result.reached), headline)
    here = {result.arm: result for result in results if result.target == target}
    trials = {arm.name: arm.trials for arm in arms}
    if target != headline or not any(result.reached for result in here.values()):
        yield f"No run has reached {figures.format_target(headline)}."
    yield from _describe_unusable(target, tuple(here.values()))
    compared = [ratio for ratio in ratios if ratio.target == target]
    if compared and here[compared[0].reference].misses:
        yield f"{_describe_miss(here[compared[0].reference])}."
    for ratio in compared:
        yield from _describe_arm(ratio, here[ratio.reference], here[ratio.other], trials)
        yield from _describe_reversals(ratio, [other for other in ratios if other.other == ratio.other], trials)
    yield from warn_of_unequal_tuning(trials)


def describe_tuning(reference: str, other: str, trials: Trials) -> str:
    """Say how much two arms were tuned."""
    mine, theirs = trials[reference], trials[other]
    if mine != theirs:
        return f"{figures.format_plural(mine, 'trial')} against {theirs}"
    return f"{figures.format_plural(mine, 'trial')} each" if mine else "no tuning recorded"


def warn_of_unequal_tuning(trials: Trials) -> Iterator[str]:
    """Warn if some arms were tuned more than others."""
    if len(set(trials.values())) > 1:
        numbers = [f"{figures.format_plural(number, 'trial')} for {name}" for name, number in trials.items()]
        yield f"Tuning was unequal ({figures.join_words(numbers)}): part of a difference may be tuning."


def _describe_unusable(target: float, results: Sequence[Result]) -> Iterator[str]:
    for score in (score for result in results for score in result.scores):
        if score.best is None:
            yield f"{score.name} was never evaluated on held-out text."
        elif score.needed and not score.needed["steps"]:
            reached = figures.format_target(target)
            yield f"The starting weights of {score.name} are at {reached} already: nothing is compared."


def _describe_arm(ratio: Ratio, reference: Result, other: Result, trials: Trials) -> Iterator[str]:
    """Compare one arm with the reference in words."""
    missed = _describe_miss(other) if other.misses and any(score.best is not None for score in other.scores) else ""
    if len(ratio.seeds) == 1:
        yield _describe_one_seed(ratio, missed, trials)
        return
    if missed:
        yield f"{missed}."
    if not {score.seed for score in reference.scores} & {score.seed for score in other.scores}:
        yield f"{reference.arm} and {other.arm} have no seed in common: nothing is paired."
    if ratio.seeds:
        yield _describe_steps(ratio, trials)
        yield from _describe_other_axes(ratio)


def _describe_reversals(ratio: Ratio, everywhere: Sequence[Ratio], trials: Trials) -> Iterator[str]:
    """Name other targets at which the opposite holds."""
    for there in everywhere:
        if there.seeds and ratio.seeds:
            claims = {decide_claim(ratio.axes["steps"]), decide_claim(there.axes["steps"])}
            if claims == {"fewer", "more"}:
                said = _describe_steps(there, trials) if len(there.seeds) > 1 else _describe_one_seed(there, "", trials)
                yield f"It is the other way round to {figures.format_target(there.target)}: {said}"


def _describe_miss(result: Result) -> str:
    target = figures.format_target(result.target)
    if len(result.scores) > 1:
        return f"{result.arm} missed {target} with {result.misses} of {len(result.scores)} seeds"
    [score] = result.scores
    best = f" (best {figures.format_loss(score.best)})" if score.best is not None else ""
    return f"{result.arm} has not reached {target} in {figures.format_plural(score.spent['steps'], 'step')}{best}"


def _describe_one_seed(ratio: Ratio, missed: str, trials: Trials) -> str:
    """Describe all axes in one sentence, since without intervals all are equally uncertain."""
    said = _group_by_claim(ratio.axes, lambda estimate: "")
    than = f"than {ratio.other} to {figures.format_target(ratio.target)}"
    basis = f" (1 seed: no interval; {describe_tuning(ratio.reference, ratio.other, trials)})"
    match ratio.axes["steps"].bound:
        case "exact":
            needs = f"{figures.join_words(said['fewer'])} {than}" if said["fewer"] else f"no less of anything {than}"
            needs += f", but {figures.join_words(said['more'])}" if said["more"] else ""
            needs += f"; about as many {figures.join_words(said['alike'])}" if said["alike"] else ""
        case "at least":
            needs = f"at least {figures.join_words(said['fewer'])}" if said["fewer"] else ""
            needs += f" {than}" if needs and not missed else ""
        case _:
            needs = f"at least {figures.join_words(said['more'])} {than}" if said["more"] else ""
    sentence = f"{ratio.reference} needs {needs}{basis}" if needs else ""
    return ": ".join(part for part in (missed, sentence) if part) + "."


def _describe_steps(ratio: Ratio, trials: Trials) -> str:
    """Write the first sentence about several seeds."""
    estimate, target = ratio.axes["steps"], figures.format_target(ratio.target)
    seeds, tuned = f"{len(ratio.seeds)} seeds", describe_tuning(ratio.reference, ratio.other, trials)
    found = format_interval(estimate)
    found = found if found.startswith("the same") else f"95 % CI {found}"
    match decide_claim(estimate):
        case "undecided":
            return (
                f"{seeds} do not decide whether {ratio.reference} or {ratio.other} needs fewer steps to {target} "
                f"({found}, {tuned})."
            )
        case "alike":
            needs = "about as many steps as"
        case claimed:
            needs = f"{_format_bound(estimate)}{format_factor(estimate)} {claimed} steps than"
    return f"{ratio.reference} needs {needs} {ratio.other} to {target} ({found}, {seeds}, {tuned})."


def _describe_other_axes(ratio: Ratio) -> Iterator[str]:
    """Write the second sentence about several seeds."""
    others = {axis: estimate for axis, estimate in ratio.axes.items() if axis != "steps"}
    said = _group_by_claim(others, lambda estimate: f" ({format_interval(estimate)})")
    least = _format_bound(ratio.axes["steps"])
    needs = [f"{least}{figures.join_words(said[claimed])}" for claimed in ("fewer", "more") if said[claimed]]
    clauses = [f"{ratio.reference} needs {', but '.join(needs)}"] if needs else []
    clauses += [f"about as many {figures.join_words(said['alike'])}"] if said["alike"] else []
    clauses += [f"not decided: {figures.join_words(said['undecided'])}"] if said["undecided"] else []
    sentence = "; ".join(clauses)
    if sentence:
        yield f"{sentence if needs else sentence[0].upper() + sentence[1:]}."


def _group_by_claim(axes: Mapping[str, Estimate], beside: Callable[[Estimate], str]) -> dict[str, list[str]]:
    """Format ratios by claim, such as `3.6x fewer tokens (2.9 to 4.4)`."""
    said: dict[str, list[str]] = {"fewer": [], "more": [], "alike": [], "undecided": []}
    for axis, estimate in axes.items():
        claimed = decide_claim(estimate)
        amount = f"{format_factor(estimate)} {claimed} " if claimed in ("fewer", "more") else ""
        said[claimed].append(f"{amount}{WORDS[axis]}{beside(estimate)}")
    return said


def _format_bound(estimate: Estimate) -> str:
    return "" if estimate.bound == "exact" else "at least "
