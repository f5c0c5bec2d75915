"""Compare two runs of one spec: they agree bit for bit, agree within rounding, or disagree.

A difference is measured relative to the largest magnitude that its column has in the recorded run, so that a quantity
near zero has no large relative difference. In small float32 runs of 30 steps, sums in another order (compiled or not,
one thread or two) made differences of at most 7e-5, and another seed of at least 2e-2 at every step. The tolerance lies
between the two. Seconds are never compared; counts (tokens, passes, FLOPs) must be equal.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Literal, NamedTuple

from safetensors.torch import load_file

from gnflow.train import checkpoint, results
from gnflow.train.changes import EXTENDED
from gnflow.train.directory import CHECKPOINTS
from gnflow.train.journal import JOURNAL, TIMINGS, Step, read
from gnflow.train.run import Run

TOLERANCE = {"float32": 1e-3, "tf32": 1e-2, "bfloat16": 3e-2}
COUNTS = ("tokens/", "passes/", "flops/")
INFINITE = float("inf")


class Difference(NamedTuple):
    """One value that differs between the runs; None if a run does not have it."""

    step: int
    column: str
    there: float | None
    here: float | None
    relative: float
    """Relative to the largest magnitude of the column; infinite for counts and for values that only one run has."""


class Weights(NamedTuple):
    """A comparison of the newest weights that both runs have kept."""

    step: int
    identical: bool
    relative: float
    """The largest |there - here| / |there| of a tensor (2-norms)."""


class Agreement(NamedTuple):
    """The result of comparing a repetition with the recorded run."""

    steps: int
    """Number of steps of the recorded run."""
    tolerance: float
    largest: Difference | None
    first: Difference | None
    """The first difference that is too large for rounding."""
    weights: Weights | None

    @property
    def verdict(self) -> Literal["identical", "rounding", "different"]:
        """The summary of the comparison. Weights count only if nothing else differs.

        Weights may drift in directions that do not change the loss, so a difference in them alone proves little. But if
        only the weights differ, the steps computed something other than what they recorded.
        """
        if self.first is not None:
            return "different"
        if self.largest is not None:
            return "rounding"
        if self.weights is None or self.weights.identical:
            return "identical"
        return "rounding" if self.weights.relative <= self.tolerance else "different"


def measure_agreement(there: Run, here: Run) -> Agreement:
    """Compare the repetition `here` with the run `there`, up to the last step that `there` has recorded."""
    reading = read(there.directory / JOURNAL)
    recorded = reading.steps
    ends = {event.step for event in reading.events if event.name == EXTENDED}
    found = [
        each
        for each in find_differences(recorded, read(here.directory / JOURNAL).steps)
        if not (each.here is None and each.step in ends)  # this was measured because the run first ended there
    ]
    tolerance = TOLERANCE[there.experiment.training.precision]
    return Agreement(
        max(recorded),
        tolerance,
        max(found, key=lambda difference: difference.relative, default=None),
        next((difference for difference in found if difference.relative > tolerance), None),
        _compare_weights(there.directory, here.directory),
    )


def find_differences(there: Mapping[int, Step], here: Mapping[int, Step]) -> Iterator[Difference]:
    """Find every value that differs, in the order of steps; the largest difference of a step comes first."""
    sizes: dict[str, float] = {}
    for record in there.values():
        for column, value in record.values.items():
            sizes[column] = max(sizes.get(column, 0.0), abs(value))
    for step in sorted({*there, *here}):
        if step not in there or step not in here:
            old_step, new_step = (float(step) if step in run else None for run in (there, here))
            yield Difference(step, "step", old_step, new_step, INFINITE)
            continue
        old, new = there[step].values, here[step].values
        columns = [column for column in {**old, **new} if not column.startswith(TIMINGS)]
        found = [
            Difference(step, column, old.get(column), new.get(column), _compute_relative(column, old, new, sizes))
            for column in columns
            if old.get(column) != new.get(column)
        ]
        yield from sorted(found, key=lambda difference: -difference.relative)


def _compute_relative(
    column: str, old: Mapping[str, float], new: Mapping[str, float], sizes: Mapping[str, float]
) -> float:
    if column not in old or column not in new or column.startswith(COUNTS) or not sizes[column]:
        return INFINITE
    return abs(new[column] - old[column]) / sizes[column]


def _compare_weights(there: Path, here: Path) -> Weights | None:
    kept = _find_weights(there), _find_weights(here)
    common = kept[0].keys() & kept[1].keys()
    if not common:
        return None
    step = max(common)
    old, new = (load_file(run[step]) for run in kept)
    if {name: value.shape for name, value in old.items()} != {name: value.shape for name, value in new.items()}:
        return Weights(step, False, INFINITE)
    relative = [float((new[name] - old[name]).norm() / old[name].norm().clamp_min(1e-30)) for name in old]
    return Weights(step, all(new[name].equal(old[name]) for name in old), max(relative))


def _find_weights(directory: Path) -> dict[int, Path]:
    """Find the undamaged weights that a run has kept, by step."""
    places = {checkpoint.read_step(path): path for path in checkpoint.list_checkpoints(directory / CHECKPOINTS)}
    steps = Run.load(directory).summary.get("steps")
    if results.read_status(directory) == results.COMPLETE and isinstance(steps, int):
        places[steps] = directory / results.MODEL
    return {step: path / checkpoint.PARAMS for step, path in places.items() if checkpoint.find_damage(path) is None}
