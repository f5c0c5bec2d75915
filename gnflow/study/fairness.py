"""What differs between runs besides the method under study."""

import json
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain

from gnflow.study import figures
from gnflow.study.state import status
from gnflow.track.description import leaves
from gnflow.train.run import Run

# Parts of a spec that a comparison of methods takes to be the same.
SHARED = ("model", "data", "metrics", "compile.mode")
SHARED_TRAINING = ("seed", "rows", "precision", "start", "evaluate_every")
SECONDS_ONLY = " (matters for seconds only)"
MOST = 6  # differences shown one by one
NOISE = 1e-4  # relative: the starting loss of the same weights on another machine


def warnings(runs: Sequence[Run], names: Sequence[str]) -> Iterator[str]:
    """A sentence for each difference, naming the values."""
    specs = [_shared(run) for run in runs]
    keys = list(dict.fromkeys(chain.from_iterable(specs)))
    differing = [key for key in keys if len({spec.get(key) for spec in specs}) > 1]
    for key in differing[:MOST]:
        seconds = SECONDS_ONLY if key == "compile.mode" else ""
        yield _told(f"`{key}`", names, [spec.get(key, figures.MISSING) for spec in specs]) + seconds
    if differing[MOST:]:
        yield f"the runs differ in {len(differing) - MOST} further values: {', '.join(differing[MOST:])}"
    for fact, values in _facts(runs).items():
        if len(set(values)) > 1:
            yield _told(fact, names, values)
    starts = [_start(run) for run in runs]
    known = [start for start in starts if start is not None]
    if known and max(known) - min(known) > NOISE * abs(max(known)):
        yield _told("the loss they start from", names, [figures.loss(start) for start in starts])
    for run, name in zip(runs, names, strict=True):
        if (found := status(run)) != "complete":
            yield f"{name} is {found}"


def _shared(run: Run) -> dict[str, str]:
    everything = dict(leaves(run.experiment.model_dump(mode="json")))
    wanted = (*SHARED, *(f"training.{key}" for key in SHARED_TRAINING))
    return {key: value for key, value in everything.items() if any(f"{key}.".startswith(f"{w}.") for w in wanted)}


def _facts(runs: Sequence[Run]) -> dict[str, list[str]]:
    """What is known only of the plan and of the machine."""
    provenances = [_provenance(run) for run in runs]
    return {
        "the tokens that one step solves on": [str(_dig(run.plan, "step", "tokens/solve")) for run in runs],
        "the data that was prepared": [str(_dig(p, "digests", "data"))[:12] for p in provenances],
        f"the device{SECONDS_ONLY}": [_device(run, p) for run, p in zip(runs, provenances, strict=True)],
        f"the attention kernel{SECONDS_ONLY}": [str(run.plan.get("attention")) for run in runs],
    }


def _device(run: Run, provenance: Mapping[str, object]) -> str:
    match provenance.get("sessions"):
        case [*_, {"device": "cpu", "processor": processor, "threads": threads}]:
            return f"{processor}, {threads} threads"
        case [*_, {"device": device}]:
            return str(device)
        case _:
            return str(run.plan.get("device"))


def _start(run: Run) -> float | None:
    first = next(iter(run.metrics.head(1).to_dicts()), {})
    value = first.get("loss/held_out") if first.get("step") == 0 else None
    return None if value is None else float(value)


def _provenance(run: Run) -> dict[str, object]:
    try:
        found = json.loads((run.directory / "provenance.json").read_bytes())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _dig(tree: Mapping[str, object], *path: str) -> object:
    value: object = tree
    for key in path:
        value = value.get(key) if isinstance(value, Mapping) else None
    return value


def _told(fact: str, names: Sequence[str], values: Sequence[str]) -> str:
    groups: dict[str, list[str]] = {}
    for name, value in zip(names, values, strict=True):
        groups.setdefault(value, []).append(name)
    return f"the runs differ in {fact}: " + "; ".join(f"{value} in {', '.join(who)}" for value, who in groups.items())
