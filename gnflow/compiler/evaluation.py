"""The cost of a run's evaluations relative to its training, and how often they should come.

Costs are FLOPs of matrix products, as for steps. A product with a curvature matrix counts as several forward passes.
The held-out text may have fewer micro-batches than a metric asks for, so these costs are upper bounds. Sheets of
samples are not counted, since only the data says how long they are.
"""

from collections.abc import Mapping
from math import ceil
from typing import NamedTuple

from gnflow.compiler.metering import RegionCost
from gnflow.spec.experiment import Experiment

MOST = 0.1  # largest part of a run's work that evaluation should take


class Evaluation(NamedTuple):
    """The totals over all evaluations of a run."""

    every: int
    """Number of steps from one evaluation to the next. The first and the last weights are evaluated as well."""
    times: int
    passes: int
    """Number of passes over a micro-batch, of any kind."""
    flops: int
    share: float
    """FLOPs of evaluation as a part of those of evaluation and training."""
    cheap: int
    """The fewest steps between evaluations such that they take at most a tenth of the work. The evaluation of the first
    weights is not counted here, so that the length of the run does not matter."""

    @property
    def remark(self) -> str | None:
        """A sentence for the user if evaluation takes more than a tenth of the work, else None."""
        if self.every >= self.cheap:
            return None
        often = "after every step" if self.every == 1 else f"every {self.every} steps"
        return (
            f"evaluation takes {self.share:.0%} of the FLOPs of this run, since it comes {often}; "
            f"`training.evaluate_every: {self.cheap}` would make it about a tenth, and so would fewer "
            "`microbatches` of the metric `loss`"
        )


def price_evaluations(
    experiment: Experiment, steps: int, step_flops: int, regions: Mapping[str, RegionCost], blocks: int
) -> Evaluation:
    """Price the evaluations of `steps` steps. With `training.evaluate_every: null` they take a tenth of the work."""
    forward = regions["value"].flops
    works = [work for metric in experiment.metrics if (work := metric.estimate_work(blocks)).passes]
    each = forward * sum(work.forwards / work.every for work in works)
    enough = max(1, ceil(each * (1 - MOST) / MOST / max(step_flops, 1)))
    every = experiment.training.evaluate_every or enough
    times = 1 + ceil(steps / every) if works else 0
    flops = forward * sum(work.forwards * ceil(times / work.every) for work in works)
    share = flops / max(flops + steps * step_flops, 1)
    passes = sum(work.passes * ceil(times / work.every) for work in works)
    return Evaluation(every, times, passes, flops, share, enough)
