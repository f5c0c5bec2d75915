"""Test whether the expected loss of an arm at the end of its schedule lies below a target.

    z = sqrt(n) (target - mean) / sigma     p = P(Z >= z)            if the standard deviation over seeds is known
    t = sqrt(n) (target - mean) / s         p = P(T >= t), n - 1     s: the standard deviation of the n losses

The test is one-sided: p is the probability of a mean this low if the expected loss is the target. One seed alone has no
test, unless the standard deviation is known.

Source:   rule 3 of github.com/KellerJordan/modded-nanogpt records/track_3_optimization/README.md @ f411b3d
Differs:  the benchmark rounds its condition to sqrt(n) (target - mean) >= 0.004; with its sigma of 0.0013, p < 0.001
          asks for 0.00402
"""

from collections.abc import Sequence
from math import sqrt
from statistics import fmean
from typing import NamedTuple

from gnflow.study import figures
from gnflow.study.intervals import run_lower_t_test, run_lower_z_test

LEVEL = 0.001


class Below(NamedTuple):
    """The test of one arm."""

    arm: str
    target: float
    seeds: int
    mean: float
    """Mean of the losses over the seeds."""
    p_value: float | None
    """One-sided; None if there is no test."""

    @property
    def decided(self) -> bool:
        """Return whether the mean is certainly below the target: p < LEVEL."""
        return self.p_value is not None and self.p_value < LEVEL


def measure_below(arm: str, losses: Sequence[float], target: float, sigma: float | None) -> Below:
    """Test the losses of the seeds of an arm; `sigma` is their standard deviation, if it is known."""
    mean, count = fmean(losses), len(losses)
    if sigma is not None:
        p_value: float | None = run_lower_z_test(mean - target, sigma / sqrt(count))
    else:
        p_value = run_lower_t_test(losses, target) if count > 1 else None
    return Below(arm, target, count, mean, p_value)


def describe_below(test: Below, sigma: float | None) -> str:
    """Say in one sentence whether the loss of an arm is below the target, and how sure that is."""
    seeds = figures.format_plural(test.seeds, "seed")
    loss = f"{test.mean:.4f} ({'mean of ' if test.seeds > 1 else ''}{seeds})"
    target = figures.format_target(test.target)
    if test.p_value is None:
        return f"Whether {test.arm} ends below {target} is not tested: its loss is {loss}, and no `sigma` is known."
    kind = "t-test" if sigma is None else f"z-test with sigma {sigma:g}"
    basis = f"one-sided {kind}, p = {test.p_value:.2g}"
    if test.decided:
        return f"{test.arm} ends below {target}: its loss is {loss}; {basis}, less than {LEVEL:g}."
    return f"It is not shown that {test.arm} ends below {target}: its loss is {loss}; {basis}, not less than {LEVEL:g}."
