"""What the evaluations of a run cost, beside its training, and how often they should come.

Costs are counted as those of steps are: FLOPs of matrix products. A product with a curvature matrix is taken as PRODUCT
forward passes. The held-out text may have fewer micro-batches than a metric asks for, so these are upper bounds. Sheets
of samples are not counted: how long they are is known of the data alone.
"""

from collections.abc import Iterator, Mapping
from math import ceil
from typing import NamedTuple

from gnflow.compiler.cost import RegionCost
from gnflow.spec.experiment import Experiment
from gnflow.spec.training import Curvature, Loss, Metric, ModalityConflict

MOST = 0.1  # of the work of a run, for evaluation
GRADIENT, PRODUCT = 3, 5  # forward passes that one takes


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


class _Work(NamedTuple):
    """What one measurement takes, and in how many evaluations one comes."""

    passes: int
    flops: int
    every: int = 1


def evaluation(
    experiment: Experiment, steps: int, step_flops: int, regions: Mapping[str, RegionCost], blocks: int
) -> Evaluation:
    """The evaluations of `steps` steps; `training.evaluate_every: null` takes as many as cost a tenth of the work."""
    forward = regions["value"].flops
    works = [work for metric in experiment.metrics for work in _works(metric, forward, blocks)]
    each = sum(work.flops / work.every for work in works)
    enough = max(1, ceil(each * (1 - MOST) / MOST / max(step_flops, 1)))
    every = experiment.training.evaluate_every or enough
    times = 1 + ceil(steps / every) if works else 0
    flops = sum(work.flops * ceil(times / work.every) for work in works)
    share = flops / max(flops + steps * step_flops, 1)
    passes = sum(work.passes * ceil(times / work.every) for work in works)
    return Evaluation(every, times, passes, flops, share, enough)


def _works(metric: Metric, forward: int, blocks: int) -> Iterator[_Work]:
    match metric:
        case Loss(microbatches=count):
            yield _Work(count, count * forward)
        case ModalityConflict(microbatches=count):
            yield _Work(2 * count, 2 * count * GRADIENT * forward)
        case Curvature():
            # As gnflow.metrics.curvature says of its cost.
            products = 6 * metric.iterations + (6 + blocks) * metric.probes
            count = metric.microbatches
            yield _Work(count * (products + 1), count * (products * PRODUCT + GRADIENT) * forward, metric.every)
