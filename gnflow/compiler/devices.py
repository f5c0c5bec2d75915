"""What a run sends and computes on several devices: which of them have work, and the bytes that they exchange."""

from math import prod
from typing import NamedTuple

from gnflow.compiler.blocks import assign_blocks
from gnflow.compiler.plan import Plan
from gnflow.crew import Crew, spans, split
from gnflow.errors import SpecError
from gnflow.exchange import chunk
from gnflow.spec import optimizer as spec

BYTES = 4  # of a number


class Device(NamedTuple):
    """The part of one process in a step."""

    rank: int
    microbatches: int
    """Number of micro-batches that it computes for each mean of gradients."""
    blocks: tuple[str, ...]
    """The blocks that it solves for, if the method is layerwise."""
    work: float
    """Its part of the inner steps, relative to one device."""
    sent_inner: int
    """Bytes that it sends in an inner step of Gauss-Newton, or in a step of a first-order method."""
    sent: int
    """Bytes that it sends in a step. Messages of a few bytes, which agree on what to do next, are not counted."""


def require_use(plan: Plan, size: int) -> None:
    """Raises SpecError if some of so many devices would have nothing to do."""
    if size == 1:
        return
    training, width = plan.experiment.training, microbatches_of_a_mean(plan)
    if plan.blocks:
        if size > len(plan.blocks):
            raise SpecError(
                f"the model has {len(plan.blocks)} blocks, so more than {len(plan.blocks)} devices would wait"
            )
    elif size > width:
        key = (
            "optimizer.inner.microbatches"
            if plan.experiment.optimizer.kind == "gauss_newton"
            else "optimizer.microbatches"
        )
        rows = training.rows * width
        cure = (
            f"`training.rows: {rows // size}` with `{key}: {size}` sees the same tokens"
            if rows % size == 0
            else f"give more `{key}`"
        )
        raise SpecError(
            f"a mean is over {width} micro-batch{'es' * (width > 1)} of {training.rows} rows, "
            f"so {size - width} of {size} devices would wait: {cure}"
        )
    elif size > training.shares:
        raise SpecError(
            f"training.shares is {training.shares}, so micro-batches are added in an order that only {training.shares} "
            f"device{'s' * (training.shares > 1)} can share: `--set training.shares={size}` makes room for {size}"
        )


def microbatches_of_a_mean(plan: Plan) -> int:
    """Returns the number of micro-batches that a gradient is averaged over."""
    method = plan.experiment.optimizer
    width = plan.cost.solve // method.inner_steps if isinstance(method, spec.GaussNewton) else plan.cost.solve
    return width // getattr(method, "leaves", 1)
