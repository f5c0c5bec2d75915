"""Performance profiles (Dolan and More, arXiv:cs/0102001; scored as in AlgoPerf, arXiv:2306.07179)."""

from typing import NamedTuple

FARTHEST = 4.0  # tau up to which AlgoPerf integrates


class Profile(NamedTuple):
    """On how many (target, seed) problems each arm is within tau times the best arm's cost, on one axis."""

    axis: str
    problems: tuple[tuple[float, int], ...]
    """(target, seed) of all arms; one that no arm solves counts against all."""
    curves: dict[str, tuple[tuple[float, float], ...]]
    """Arm -> (tau, fraction of the problems) where the fraction rises, from tau = 1 on; constant to the right."""
    scores: dict[str, float]
    """Arm -> mean of the curve over 1 <= tau <= 4: 1 for an arm that is best everywhere."""
