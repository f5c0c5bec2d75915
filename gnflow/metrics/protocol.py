"""The form of every metric: how often it is measured, what it needs, and a function of a moment of the run.

This module does not import torch, so that a plug-in need not import it either. Built-in kinds of metrics and those of
plug-ins are made and measured in the same way. A kind is a torch-free class and a factory:

    class TopFive(MetricKind):
        factory = "my_metrics:top_five"
        kind: Literal["top_five"] = "top_five"
        microbatches: int = 4

    def top_five(spec: TopFive, subject: Subject) -> Metric:
        def measure(at: Moment) -> Metrics:
            return {"top_five/part": ...}

        return Metric(measure, spec.microbatches)
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

from gnflow.objective import Metrics, Objective, Params

if TYPE_CHECKING:
    from torch import Tensor

    from gnflow.data.microbatches import Prepared
    from gnflow.models.model import Model
    from gnflow.optim.descent import Probe
    from gnflow.optim.protocol import AnyState, Jit, Optimizer
    from gnflow.spec.experiment import Experiment


class Subject(NamedTuple):
    """The experiment that a metric is built for, with its network."""

    experiment: Experiment
    network: Model
    """The network of the run."""
    exact: Callable[[], Objective]
    """Makes the loss with plain attention, in float32 and eager, so that it has all derivatives. Its `product` is that
    of the Gauss-Newton matrix."""
    jit: Jit
    """Compiles a function as a region of the run under a name."""
    plain: Callable[[], Model]
    """Makes the network of that loss: the network of the run, with plain attention."""


class Moment(NamedTuple):
    """The state after a step, and the parts of the run that a metric may use."""

    step: int
    params: Params
    before: Params
    """The weights that the step started from. They are empty before the first step, and if no metric needs them."""
    optimizer: Optimizer
    state: AnyState
    """The state of the optimizer."""
    objective: Objective
    """The objective of the run. Its `value` and `gradient` are those of the true loss."""
    batch: Tensor
    """The held-out micro-batches that the metric asked for, or all if there are fewer: (micro-batches, rows,
    time + 1)."""
    dataset: Prepared | None = None
    """The prepared data of the run; None outside a run."""
    write: Callable[[str, bytes], None] | None = None
    """Writes a file of this name to `samples/` of the run directory, either whole or not at all; None outside a run."""


Measure: TypeAlias = Callable[[Moment], Metrics]


def measure_nothing(at: Moment) -> Metrics:
    """Return no values, for a metric whose columns the trainer or the optimizer records."""
    return {}


class Metric(NamedTuple):
    """One metric of a run, as its factory returns it. `measure` may fill the `columns` of its kind."""

    measure: Measure = measure_nothing
    """moment -> 0-D tensors by column, which may stay on the device."""
    microbatches: int = 0
    """Number of held-out micro-batches that `measure` looks at."""
    every: int | None = 1
    """Number of evaluations from one measurement to the next. The last evaluation of a run always has a measurement;
    with None it is the only one."""
    decides: bool = False
    """Whether the measurement may end the run. Such a metric is measured at every evaluation, before all others; the
    others are skipped if one of its losses is not finite."""
    needs_before: bool = False
    """Whether `measure` looks at `Moment.before`."""
    probe: Probe | None = None
    """Measures the momentum of the matrices, {stack: (k, m, n)}, at every step. It is compiled with the update."""

    def is_due(self, evaluation: int, last: bool) -> bool:
        """Return whether evaluation number `evaluation`, counted from 0, has a measurement."""
        return last or (self.every is not None and evaluation % self.every == 0)
