"""Arms: groups of runs that differ only in their seed, with a summary of their settings."""

import json
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from itertools import takewhile
from math import sqrt
from pathlib import Path
from statistics import median
from typing import NamedTuple

from gnflow.errors import SpecError
from gnflow.study.scores import METRIC, count_devices, select_numbers
from gnflow.train.run import Run

SEED = re.compile(r"seed_\d+")


class Arm(NamedTuple):
    """Runs of one spec, in the order of their seeds."""

    name: str
    kind: str
    """The kind of the optimizer."""
    runs: tuple[Run, ...]
    trials: int
    """Number of configurations that were tried to choose the values of this spec."""
    learning_rates: dict[str, float]
    """Learning rates by their place in the optimizer, such as `inner.others`; empty for the rate of the optimizer
    itself."""
    update_rms: float | None
    """Median of norm(update) / sqrt(number of parameters) over the steps of all runs."""
    start: float | None
    """Held-out loss of the starting weights: the median over the seeds."""
    best: float | None
    """Best held-out loss: the median over the seeds."""
    twins: tuple[tuple[Run, Run], ...] = ()
    """Pairs of a run in `runs` and one with its seed on another number of devices, which is not counted again."""

    @property
    def seeds(self) -> tuple[int, ...]:
        """The seed of each run, in order."""
        return tuple(run.experiment.training.seed for run in self.runs)

    @property
    def labels(self) -> tuple[str, ...]:
        """A name for each run."""
        return (self.name,) if len(self.runs) == 1 else tuple(f"{self.name} (seed {seed})" for seed in self.seeds)


def group_runs(runs: Sequence[Run]) -> tuple[Arm, ...]:
    """Group runs whose specs differ only in seed, name and tracking.

    Two runs with one seed on different numbers of devices have the same bits and count as one, the one that went
    further. Raises SpecError if two runs share a seed and the number of devices.
    """
    groups: dict[str, dict[int, Run]] = {}
    twins: dict[str, list[tuple[Run, Run]]] = defaultdict(list)
    for run in runs:
        spec, seed = _serialise_spec(run), run.experiment.training.seed
        group = groups.setdefault(spec, {})
        if seed in group and count_devices(group[seed]) == count_devices(run):
            both = f"{group[seed].directory} and {run.directory}"
            raise SpecError(f"{both} are runs of one spec with one seed ({seed}); leave one out")
        if seed in group:
            further, other = sorted((group[seed], run), key=lambda one: len(one.metrics), reverse=True)
            group[seed] = further
            twins[spec].append((further, other))
        else:
            group[seed] = run
    members = {spec: tuple(group[seed] for seed in sorted(group)) for spec, group in groups.items()}
    names = _choose_names(list(members.values()))
    return tuple(
        _make_arm(name, own)._replace(twins=tuple(twins[spec]))
        for name, (spec, own) in zip(names, members.items(), strict=True)
    )


def list_held_out_losses(run: Run) -> list[tuple[int, float]]:
    """Return (step, held-out loss) of every evaluation."""
    if METRIC not in run.metrics.columns:
        return []
    return run.metrics.select("step", METRIC).drop_nulls().rows()


def find_start_loss(run: Run) -> float | None:
    """Return the held-out loss of the starting weights."""
    return next((loss for step, loss in list_held_out_losses(run) if step == 0), None)


def _make_arm(name: str, runs: tuple[Run, ...]) -> Arm:
    spec = runs[0].experiment
    starts = [loss for run in runs if (loss := find_start_loss(run)) is not None]
    bests = [min(loss for _, loss in losses) for run in runs if (losses := list_held_out_losses(run))]
    updates = [value for run in runs for value in _list_update_rms(run)]
    return Arm(
        name,
        spec.optimizer.kind,
        runs,
        spec.tuning.trials,
        dict(_list_learning_rates(spec.optimizer.model_dump(mode="json"))),
        median(updates) if updates else None,
        median(starts) if starts else None,
        median(bests) if bests else None,
    )


def _serialise_spec(run: Run) -> str:
    """Return the JSON text of a spec without its seed, its name and its tracking."""
    tree = run.experiment.model_dump(mode="json", exclude={"name": True, "tracking": True, "training": {"seed"}})
    return json.dumps(tree, sort_keys=True)


def _list_learning_rates(tree: object, path: str = "") -> Iterator[tuple[str, float]]:
    children = tree.items() if isinstance(tree, Mapping) else enumerate(tree) if isinstance(tree, list) else ()
    for key, child in children:
        if key == "learning_rate" and isinstance(child, int | float):
            yield path, child
        else:
            yield from _list_learning_rates(child, f"{path}.{key}" if path else str(key))


def _list_update_rms(run: Run) -> list[float]:
    parameters = select_numbers(run.plan).get("parameters")
    if not parameters or "norm/update" not in run.metrics.columns:
        return []
    return [norm / sqrt(parameters) for norm in run.metrics["norm/update"].drop_nulls()]


def _choose_names(members: Sequence[tuple[Run, ...]]) -> list[str]:
    """Choose the shortest name that no other arm has: the name of a directory, its path, or all paths."""
    candidates = [
        (_find_common_name(runs), str(_find_home(runs[0])), " + ".join(str(run.directory) for run in runs))
        for runs in members
    ]
    levels = list(zip(*candidates, strict=True))
    return [
        next(name for name, level in zip(names, levels, strict=True) if level.count(name) == 1) for names in candidates
    ]


def _find_common_name(runs: Sequence[Run]) -> str:
    """Find the common name: `full_gn` for `full_gn/seed_1` and `full_gn/seed_2`, or `full_gn_1` and `full_gn_2`."""
    names = list(dict.fromkeys(_find_home(run).resolve().name for run in runs))
    if len(names) == 1:
        return names[0]
    words = [re.split(r"([_.-])", name) for name in names]
    alike = [group[0] for group in takewhile(lambda group: len(set(group)) == 1, zip(*words, strict=False))]
    return re.sub(r"[_.-]+(seed[_.-]*)?$", "", "".join(alike)) or "+".join(names)


def _find_home(run: Run) -> Path:
    """Return the directory that has the name of the arm."""
    return run.directory.parent if SEED.fullmatch(run.directory.resolve().name) else run.directory
