"""Find a process that computes more slowly than the others, which then wait for it in every step."""

from collections.abc import Mapping, Sequence
from statistics import median
from typing import NamedTuple

SLOW = "slow"  # name of the event
FACTOR, LEAST, STEPS = 1.5, 0.01, 10
"""A process is slow if it takes this many times as long as expected, and this many seconds longer, in so many steps."""


class Slow(NamedTuple):
    """A process that was slow for some steps."""

    rank: int
    message: str


class Stragglers:
    """The seconds of each process in the last steps, without those in which it waited for others.

    `work` is the part that each process has in a step, as the plan says. A process with more work may take longer.
    """

    def __init__(self, work: Sequence[float]) -> None:
        self.work = work
        self._found: dict[int, list[tuple[float, float]]] = {rank: [] for rank in range(len(work))}

    def hear(self, seconds: Mapping[int, float]) -> list[Slow]:
        """Take note of a step. Return the processes that have now been slow for `STEPS` steps in a row."""
        slow = []
        for rank, own in seconds.items():
            others = [each for other, each in seconds.items() if other != rank]
            share = self.work[rank] / median(part for other, part in enumerate(self.work) if other != rank)
            expected = median(others) * max(share, 1.0)
            steps = self._found[rank]
            if own <= max(FACTOR * expected, expected + LEAST):
                steps.clear()
                continue
            steps.append((own, median(others)))
            if len(steps) == STEPS:
                taken, theirs = (sum(column) / STEPS for column in zip(*steps, strict=True))
                slow.append(
                    Slow(
                        rank,
                        f"process {rank} of {len(seconds)} has computed for {taken:.3g} s a step over {STEPS} steps, "
                        f"the others for {theirs:.3g} s; they wait for it",
                    )
                )
        return slow
