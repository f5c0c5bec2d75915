"""What the evaluations of a run cost, beside its training, and how often they should come.

Costs are counted as those of steps are: FLOPs of matrix products. A product with a curvature matrix is taken as PRODUCT
forward passes. The held-out text may have fewer micro-batches than a metric asks for, so these are upper bounds. Sheets
of samples are not counted: how long they are is known of the data alone.
"""

from collections.abc import Mapping
from math import ceil
from typing import NamedTuple

from gnflow.compiler.metering import RegionCost
from gnflow.spec.experiment import Experiment

MOST = 0.1  # of the work of a run, for evaluation


class Evaluation(NamedTuple):
    """All evaluations of a run together."""

    every: int
    """Steps from one to the next; the starting weights and the last ones are evaluated as well."""
    times: int
    passes: int
    """Passes over a micro-batch, of whatever kind."""
    flops: int
    share: float
    """FLOPs of evaluation among those of evaluation and training."""
    cheap: int
    """The fewest steps between evaluations with which they take at most a tenth of the work; that of the starting
    weights is not counted here, so that the length of the run does not matter."""

    @property
    def remark(self) -> str | None:
        """A sentence where evaluation takes more than a tenth of the work; None elsewhere."""
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
    """The evaluations of `steps` steps; `training.evaluate_every: null` takes as many as cost a tenth of the work."""
    forward = regions["value"].flops
    works = [work for metric in experiment.metrics if (work := metric.work(blocks)).passes]
    each = forward * sum(work.forwards / work.every for work in works)
    enough = max(1, ceil(each * (1 - MOST) / MOST / max(step_flops, 1)))
    every = experiment.training.evaluate_every or enough
    times = 1 + ceil(steps / every) if works else 0
    flops = forward * sum(work.forwards * ceil(times / work.every) for work in works)
    share = flops / max(flops + steps * step_flops, 1)
    passes = sum(work.passes * ceil(times / work.every) for work in works)
    return Evaluation(every, times, passes, flops, share, enough)
