"""Arms compared at targets, on five axes: scores, ratios, profile, a verdict in words, and what speaks against it."""

from collections.abc import Sequence
from typing import NamedTuple

from gnflow.study.arms import Arm
from gnflow.study.profile import Profile
from gnflow.study.ratios import Ratio
from gnflow.study.scores import Score
from gnflow.train.run import Run


class Result(NamedTuple):
    """One arm at one target."""

    arm: str
    target: float
    scores: tuple[Score, ...]
    """One for each run of the arm, in the order of its seeds."""
    needed: dict[str, tuple[float, ...]]
    """Axis (those of COLUMNS) -> a cost for each seed; infinite where the target was missed."""
    median: dict[str, float]
    """Axis -> median over the seeds; infinite when half of them or more missed."""
    reached: int
    """How many seeds reached the target."""


class Comparison(NamedTuple):
    """Everything that `gnflow compare` and `gnflow report` tell."""

    targets: tuple[float, ...]
    """From the easiest down; the last, the lowest, is the headline."""
    arms: tuple[Arm, ...]
    """In the order of the runs."""
    results: tuple[Result, ...]
    """Arms by targets: for each target, in the order of `arms`."""
    reference: str | None
    """The arm that the others are compared to: that with the fewest steps to the headline unless named; None if no
    arm reached it."""
    ratios: tuple[Ratio, ...]
    """For each target, every other arm against the reference."""
    profiles: dict[str, Profile]
    """By axis (WORDS); empty with one target or one arm."""
    verdict: tuple[str, ...]
    """Sentences about the headline."""
    warnings: tuple[str, ...]

    @property
    def headline(self) -> float:
        """The target that the verdict is about."""
        return self.targets[-1]

    def at(self, target: float) -> tuple[Result, ...]:
        """The results at one target, in the order of `arms`."""
        return tuple(result for result in self.results if result.target == target)

    def to_json(self) -> dict[str, object]:
        """A plain tree without infinities: null, beside a count of the misses."""
        raise NotImplementedError


def compare(runs: Sequence[Run], targets: Sequence[float] = (), reference: str | None = None) -> Comparison:
    """Raises SpecError for runs without a common target, two runs of one arm and seed, and an unknown reference."""
    raise NotImplementedError
