"""Count a step with a long line search from two steps with short ones.

A search evaluates every candidate on all of its micro-batches, so all counts of a step are affine in their number M:

    count(M) = count(a) + (count(b) - count(a)) (M - a) / (b - a)

a and b leave the same remainder as M if divided by the number of shares. Every share then grows by the same number of
micro-batches from a to b and from b to M, so that the result is exact.
"""

from collections.abc import Mapping
from math import ceil
from typing import NamedTuple

from gnflow.spec.experiment import Experiment
from gnflow.spec.optimizer import GaussNewton

FEWEST = 8
"""Number of micro-batches from which a search is counted in full batches, at least."""


class Shortened(NamedTuple):
    """Two experiments with shorter searches, and how far the planned one lies beyond them."""

    first: Experiment
    second: Experiment
    times: int
    """(M - a) / (b - a)."""

    def continue_line(self, first: int, second: int) -> int:
        """Return the count of the planned experiment from those of the two shorter ones."""
        return first + (second - first) * self.times

    def continue_all(self, first: Mapping[str, float], second: Mapping[str, float]) -> dict[str, float]:
        """Return all counts of the planned experiment."""
        return {name: first[name] + (second[name] - first[name]) * self.times for name in second}


def shorten_search(experiment: Experiment) -> Shortened | None:
    """Return two experiments with shorter searches, or None if the search is short or there is none."""
    method, shares = experiment.optimizer, experiment.training.shares
    if not isinstance(method, GaussNewton):
        return None
    full = getattr(method.search, "microbatches", 0)
    first = full % shares + shares * ceil(FEWEST / shares)
    second = first + shares
    if full <= second + shares:
        return None
    return Shortened(_set_search(experiment, first), _set_search(experiment, second), (full - first) // shares)


def _set_search(experiment: Experiment, microbatches: int) -> Experiment:
    method = experiment.optimizer
    assert isinstance(method, GaussNewton)
    search = method.search.model_copy(update={"microbatches": microbatches})
    return experiment.model_copy(update={"optimizer": method.model_copy(update={"search": search})})
