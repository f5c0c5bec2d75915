"""Describe a comparison in words."""

from collections.abc import Callable, Iterator, Mapping, Sequence

from gnflow.study import figures
from gnflow.study.arms import Arm
from gnflow.study.claims import claim, factor, interval
from gnflow.study.ratios import Estimate, Ratio
from gnflow.study.results import Result
from gnflow.study.scores import WORDS

Trials = Mapping[str, int]


def verdict(arms: Sequence[Arm], results: Sequence[Result], ratios: Sequence[Ratio]) -> Iterator[str]:
    """Write sentences about the lowest target or, if no run reached it, about the lowest one that was reached."""
    headline = results[-1].target
    target = next((result.target for result in reversed(results) if result.reached), headline)
    here = {result.arm: result for result in results if result.target == target}
    trials = {arm.name: arm.trials for arm in arms}
    if target != headline or not any(result.reached for result in here.values()):
        yield f"No run has reached {figures.target(headline)}."
    yield from _unusable(target, tuple(here.values()))
    compared = [ratio for ratio in ratios if ratio.target == target]
    if compared and here[compared[0].reference].missed:
        yield f"{_missed(here[compared[0].reference])}."
    for ratio in compared:
        yield from _compared(ratio, here[ratio.reference], here[ratio.other], trials)
        yield from _elsewhere(ratio, [other for other in ratios if other.other == ratio.other], trials)
    yield from unequal(trials)


def tuning(reference: str, other: str, trials: Trials) -> str:
    """Say how much two arms were tuned."""
    mine, theirs = trials[reference], trials[other]
    if mine != theirs:
        return f"{figures.several(mine, 'trial')} against {theirs}"
    return f"{figures.several(mine, 'trial')} each" if mine else "no tuning recorded"


def unequal(trials: Trials) -> Iterator[str]:
    """Warn if some arms were tuned more than others."""
    if len(set(trials.values())) > 1:
        numbers = [f"{figures.several(number, 'trial')} for {name}" for name, number in trials.items()]
        yield f"Tuning was unequal ({figures.listed(numbers)}): part of a difference may be tuning."


def _unusable(target: float, results: Sequence[Result]) -> Iterator[str]:
    for score in (score for result in results for score in result.scores):
        if score.best is None:
            yield f"{score.name} was never evaluated on held-out text."
        elif score.needed and not score.needed["steps"]:
            yield f"The starting weights of {score.name} are at {figures.target(target)} already: nothing is compared."


def _compared(ratio: Ratio, reference: Result, other: Result, trials: Trials) -> Iterator[str]:
    """Compare one arm with the reference in words."""
    missed = _missed(other) if other.missed and any(score.best is not None for score in other.scores) else ""
    if len(ratio.seeds) == 1:
        yield _of_one_seed(ratio, missed, trials)
        return
    if missed:
        yield f"{missed}."
    if not {score.seed for score in reference.scores} & {score.seed for score in other.scores}:
        yield f"{reference.arm} and {other.arm} have no seed in common: nothing is paired."
    if ratio.seeds:
        yield _steps(ratio, trials)
        yield from _other_axes(ratio)


def _elsewhere(ratio: Ratio, everywhere: Sequence[Ratio], trials: Trials) -> Iterator[str]:
    """Name other targets at which the opposite holds."""
    for there in everywhere:
        if there.seeds and ratio.seeds:
            claims = {claim(ratio.axes["steps"]), claim(there.axes["steps"])}
            if claims == {"fewer", "more"}:
                said = _steps(there, trials) if len(there.seeds) > 1 else _of_one_seed(there, "", trials)
                yield f"It is the other way round to {figures.target(there.target)}: {said}"


def _missed(result: Result) -> str:
    target = figures.target(result.target)
    if len(result.scores) > 1:
        return f"{result.arm} missed {target} with {result.missed} of {len(result.scores)} seeds"
    [score] = result.scores
    best = f" (best {figures.loss(score.best)})" if score.best is not None else ""
    return f"{result.arm} has not reached {target} in {figures.several(score.spent['steps'], 'step')}{best}"


def _of_one_seed(ratio: Ratio, missed: str, trials: Trials) -> str:
    """Describe all axes in one sentence, since without intervals all are equally uncertain."""
    said = _by_claim(ratio.axes, lambda estimate: "")
    than = f"than {ratio.other} to {figures.target(ratio.target)}"
    basis = f" (1 seed: no interval; {tuning(ratio.reference, ratio.other, trials)})"
    match ratio.axes["steps"].bound:
        case "exact":
            needs = f"{figures.listed(said['fewer'])} {than}" if said["fewer"] else f"no less of anything {than}"
            needs += f", but {figures.listed(said['more'])}" if said["more"] else ""
            needs += f"; about as many {figures.listed(said['alike'])}" if said["alike"] else ""
        case "at least":
            needs = f"at least {figures.listed(said['fewer'])}" if said["fewer"] else ""
            needs += f" {than}" if needs and not missed else ""
        case _:
            needs = f"at least {figures.listed(said['more'])} {than}" if said["more"] else ""
    sentence = f"{ratio.reference} needs {needs}{basis}" if needs else ""
    return ": ".join(part for part in (missed, sentence) if part) + "."


def _steps(ratio: Ratio, trials: Trials) -> str:
    """Write the first sentence about several seeds."""
    estimate, target = ratio.axes["steps"], figures.target(ratio.target)
    seeds, tuned = f"{len(ratio.seeds)} seeds", tuning(ratio.reference, ratio.other, trials)
    found = interval(estimate)
    found = found if found.startswith("the same") else f"95 % CI {found}"
    match claim(estimate):
        case "undecided":
            return (
                f"{seeds} do not decide whether {ratio.reference} or {ratio.other} needs fewer steps to {target} "
                f"({found}, {tuned})."
            )
        case "alike":
            needs = "about as many steps as"
        case claimed:
            needs = f"{_least(estimate)}{factor(estimate)} {claimed} steps than"
    return f"{ratio.reference} needs {needs} {ratio.other} to {target} ({found}, {seeds}, {tuned})."


def _other_axes(ratio: Ratio) -> Iterator[str]:
    """Write the second sentence about several seeds."""
    others = {axis: estimate for axis, estimate in ratio.axes.items() if axis != "steps"}
    said = _by_claim(others, lambda estimate: f" ({interval(estimate)})")
    least = _least(ratio.axes["steps"])
    needs = [f"{least}{figures.listed(said[claimed])}" for claimed in ("fewer", "more") if said[claimed]]
    clauses = [f"{ratio.reference} needs {', but '.join(needs)}"] if needs else []
    clauses += [f"about as many {figures.listed(said['alike'])}"] if said["alike"] else []
    clauses += [f"not decided: {figures.listed(said['undecided'])}"] if said["undecided"] else []
    sentence = "; ".join(clauses)
    if sentence:
        yield f"{sentence if needs else sentence[0].upper() + sentence[1:]}."


def _by_claim(axes: Mapping[str, Estimate], beside: Callable[[Estimate], str]) -> dict[str, list[str]]:
    """Format ratios by claim, such as `3.6x fewer tokens (2.9 to 4.4)`."""
    said: dict[str, list[str]] = {"fewer": [], "more": [], "alike": [], "undecided": []}
    for axis, estimate in axes.items():
        claimed = claim(estimate)
        amount = f"{factor(estimate)} {claimed} " if claimed in ("fewer", "more") else ""
        said[claimed].append(f"{amount}{WORDS[axis]}{beside(estimate)}")
    return said


def _least(estimate: Estimate) -> str:
    return "" if estimate.bound == "exact" else "at least "
