"""Find what makes a comparison unfair: differences between arms besides the optimizer, and runs that did not work."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import chain

from gnflow.study import figures
from gnflow.study.arms import Arm, find_start_loss, list_held_out_losses
from gnflow.study.load import describe_device
from gnflow.study.scores import count_devices
from gnflow.study.state import find_status
from gnflow.track.description import find_text, flatten, read_json
from gnflow.train.run import Run

# Parts of a spec that should be the same in a comparison of methods.
SHARED = ("model", "data", "metrics", "compile.mode")
SHARED_TRAINING = ("rows", "precision", "start", "evaluate_every")
SECONDS_ONLY = " (matters for seconds only)"
MOST = 6  # number of differences that are shown one by one
LENGTH = "gn/alpha"  # the chosen length of a step; 0 if it was refused
NOISE = 1e-4  # relative difference that the same weights may have in starting loss on different machines


def warn_of_differences(arms: Sequence[Arm], targets: Sequence[float] = ()) -> Iterator[str]:
    """Write a sentence for each difference, with the values, and for each run that did not work."""
    names = [arm.name for arm in arms]
    yield from _compare_specs(arms)
    if len({arm.seeds for arm in arms}) > 1:
        yield _describe_difference("seeds", names, [", ".join(map(str, arm.seeds)) for arm in arms])
    yield from _compare_tuning(arms)
    for fact, values in _collect_facts([run for arm in arms for run in arm.runs]).items():
        if len(set(values)) > 1:
            yield _describe_difference(fact, *_group_by_arm(arms, values))
    yield from _compare_starts(arms)
    yield from _find_early_stops(arms, targets)
    yield from _find_refusals(arms)
    for arm in arms:
        for kept, other in arm.twins:
            yield (
                f"{kept.directory} and {other.directory} are one run on {count_devices(kept):.3g} and on "
                f"{count_devices(other):.3g} devices, which counts once; seconds are those of the former"
            )
    for arm in arms:
        for run, label in zip(arm.runs, arm.labels, strict=True):
            if (found := find_status(run)) != "complete":
                yield f"{label} is {found}"


def _compare_specs(arms: Sequence[Arm]) -> Iterator[str]:
    names, specs = [arm.name for arm in arms], [_select_shared(arm.runs[0]) for arm in arms]
    keys = list(dict.fromkeys(chain.from_iterable(specs)))
    differing = [key for key in keys if len({spec.get(key) for spec in specs}) > 1]
    for key in differing[:MOST]:
        seconds = SECONDS_ONLY if key == "compile.mode" else ""
        yield _describe_difference(f"`{key}`", names, [spec.get(key, figures.MISSING) for spec in specs]) + seconds
    if differing[MOST:]:
        yield f"the runs differ in {len(differing) - MOST} further values: {', '.join(differing[MOST:])}"


def _compare_tuning(arms: Sequence[Arm]) -> Iterator[str]:
    trials = [arm.trials for arm in arms]
    if len(set(trials)) > 1:
        yield _describe_difference("tuning trials", [arm.name for arm in arms], [str(number) for number in trials])
    elif len(arms) > 1 and not any(trials):
        yield "no tuning is recorded for any arm (`tuning.trials` is 0): a difference may be one of tuning"


def _compare_starts(arms: Sequence[Arm]) -> Iterator[str]:
    """Warn about the first seed for which the arms start with different losses."""
    for seed in sorted({seed for arm in arms for seed in arm.seeds}):
        starts = {arm.name: find_start_loss(arm.runs[arm.seeds.index(seed)]) for arm in arms if seed in arm.seeds}
        known = [loss for loss in starts.values() if loss is not None]
        if known and max(known) - min(known) > NOISE * abs(max(known)):
            fact = "the loss they start from" + (f" with seed {seed}" if any(len(arm.runs) > 1 for arm in arms) else "")
            yield _describe_difference(fact, list(starts), [figures.format_loss(loss) for loss in starts.values()])
            return


def _find_early_stops(arms: Sequence[Arm], targets: Sequence[float]) -> Iterator[str]:
    """Warn about runs that stopped at their own target: they have not really missed a lower one."""
    for arm in arms:
        own = arm.runs[0].experiment.training.target
        lower = [target for target in targets if own and target < own.at_most]
        bests = [min((loss for _, loss in list_held_out_losses(run)), default=None) for run in arm.runs]
        for target in lower:
            if own and any(best is not None and target < best <= own.at_most for best in bests):
                yield (
                    f"{arm.name} stops on reaching {figures.format_target(own.at_most)}, "
                    f"so its miss of {figures.format_target(target)} says nothing"
                )


def _find_refusals(arms: Sequence[Arm]) -> Iterator[str]:
    """Warn about runs that refused most of their steps."""
    for arm in arms:
        for run, label in zip(arm.runs, arm.labels, strict=True):
            lengths = run.metrics[LENGTH].drop_nulls().to_list() if LENGTH in run.metrics.columns else []
            if (refused := lengths.count(0)) > len(lengths) / 2:
                yield f"{label} refused {refused} of {len(lengths)} steps, which left its weights as they were"


def _select_shared(run: Run) -> dict[str, str]:
    everything = dict(flatten(run.experiment.model_dump(mode="json")))
    wanted = (*SHARED, *(f"training.{key}" for key in SHARED_TRAINING))
    return {key: value for key, value in everything.items() if any(f"{key}.".startswith(f"{w}.") for w in wanted)}


def _collect_facts(runs: Sequence[Run]) -> dict[str, list[str]]:
    """Return facts that only the plan and the machine tell."""
    return {
        "the tokens that one step solves on": [str(_dig(run.plan, "step", "tokens/solve")) for run in runs],
        "the steps from one evaluation to the next, as planned": [_find_period(run) for run in runs],
        "the data that was prepared": [
            str(find_text(read_json(run.directory / "provenance.json"), "digests", "data"))[:12] for run in runs
        ],
        f"the device{SECONDS_ONLY}": [describe_device(run) for run in runs],
        f"the attention kernel{SECONDS_ONLY}": [str(run.plan.get("attention")) for run in runs],
        "whether blocks are recomputed to save memory (matters for seconds and FLOPs only)": [
            "yes" if run.plan.get("recomputed") else "no" for run in runs
        ],
    }


def _group_by_arm(arms: Sequence[Arm], values: Sequence[str]) -> tuple[list[str], list[str]]:
    """Name values by arm if all runs of an arm agree, and by run otherwise."""
    names: list[str] = []
    found: list[str] = []
    rest = iter(values)
    for arm in arms:
        theirs = [next(rest) for _ in arm.runs]
        agree = len(set(theirs)) == 1
        names += [arm.name] if agree else arm.labels
        found += theirs[:1] if agree else theirs
    return names, found


def _find_data_digest(run: Run) -> str:
    return str(find_text(read_json(run.directory / "provenance.json"), "digests", "data"))


def _find_period(run: Run) -> str:
    """Return the number that `evaluate_every: null` stands for. Numbers are compared as part of the spec."""
    chosen = run.experiment.training.evaluate_every is None
    return str(_dig(run.plan, "evaluation", "every")) if chosen else "given"


def _dig(tree: Mapping[str, object], *path: str) -> object:
    value: object = tree
    for key in path:
        value = value.get(key) if isinstance(value, Mapping) else None
    return value


def _describe_difference(fact: str, names: Sequence[str], values: Sequence[str]) -> str:
    groups: dict[str, list[str]] = {}
    for name, value in zip(names, values, strict=True):
        groups.setdefault(value, []).append(name)
    return f"the runs differ in {fact}: " + "; ".join(f"{value} in {', '.join(who)}" for value, who in groups.items())
