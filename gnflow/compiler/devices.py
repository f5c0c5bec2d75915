"""Predict what each of several devices computes and sends in a run, and refuse devices without work."""

from math import prod
from typing import NamedTuple, assert_never

from gnflow.compiler.blocks import assign_blocks
from gnflow.compiler.parts import assign_parts
from gnflow.compiler.plan import Plan
from gnflow.crew import Crew, find_chunk_size, list_owned, list_spans
from gnflow.errors import SpecError
from gnflow.spec import optimizer as spec
from gnflow.spec import search

BYTES = 4  # of a number


class Device(NamedTuple):
    """The part that one process has in a step."""

    rank: int
    microbatches: int
    """Number of micro-batches that it computes for a mean of gradients."""
    blocks: tuple[str, ...]
    """The blocks that it solves for, if the method is layerwise."""
    work: float
    """Its passes in a solve, relative to those of one device."""
    sent_inner: int
    """Bytes that it sends in an inner step of Gauss-Newton, or in a step of a first-order method."""
    sent: int
    """Bytes that it sends in a step. The messages that agree on what to do next are not among them."""


class Member(Crew):
    """A process of a crew that does not exist, to ask what it would do."""

    def __init__(self, rank: int, size: int, shares: int) -> None:
        super().__init__(shares)
        self.rank, self.size = rank, size

    def count_bytes_of_sum(self, numbers: int, count: int) -> int:
        """Return the bytes that it sends for a sum of `count` trees of so many numbers."""
        if not (spans := self._count_spans(count)):
            return 0
        return (spans + 1) * find_chunk_size(numbers, self.size) * BYTES * (self.size - 1)

    def count_bytes_to_owners(self, numbers: int, owned: int, count: int) -> int:
        """Return the bytes that it sends for a sum of which each process gets what it owns."""
        return self._count_spans(count) * (numbers - owned) * BYTES

    def _count_spans(self, count: int) -> int:
        """Return how many sums it sends for a sum of `count` trees; 0 if each process computes all of it."""
        parts = self.list_parts(min(self.shares, count))
        return len(list_spans(self.pick_own(parts))) if len(parts) > 1 else 0

    def count_bytes_of_values(self, parts: list[range], each: int = BYTES) -> int:
        """Return the bytes that it sends for one number of each micro-batch."""
        return max(map(len, parts)) * each * (self.size - 1) if len(parts) > 1 else 0

    def count_bytes_of_mean_loss(self, count: int, each: int) -> int:
        """Return the bytes that it sends for the mean loss that comes with a gradient over `count` micro-batches."""
        return self.count_bytes_of_values(self.list_summed(count), each) if count > 1 else 0

    def count_bytes_of_losses(self, count: int) -> int:
        """Return the bytes that it sends for the mean loss over `count` micro-batches."""
        return self.count_bytes_of_values(self.list_parts(count))


def share_out(plan: Plan, size: int) -> list[Device]:
    """Return the parts of `size` processes. Raises SpecError if some would have nothing to do."""
    require_use(plan, size)
    return [_describe_part(plan, Member(rank, size, plan.experiment.training.shares)) for rank in range(size)]


def find_efficiency(plan: Plan, size: int) -> float:
    """Return the speed-up of a solve by `size` devices, relative to `size`, if messages took no time."""
    return 1 / (size * max(device.work for device in share_out(plan, size)))


def _describe_part(plan: Plan, member: Member) -> Device:
    width = count_microbatches_of_mean(plan)
    numbers = {row.name: prod(row.shape) for row in plan.parameters if row.method != "none"}
    search = _count_bytes_of_search(plan, member, sum(numbers.values()))
    if plan.blocks:
        owners = assign_blocks(plan.blocks, member.size)
        own = tuple(name for name, owner in owners.items() if owner == member.rank)
        goal = sum(numbers[name] for block in own for name in plan.blocks[block].names)
        work = sum(plan.blocks[name].cost for name in own) / sum(block.cost for block in plan.blocks.values())
        return Device(member.rank, width, own, work, 0, goal * BYTES * (member.size - 1) + search)
    computed = len(member.pick_own(member.list_summed(width)))
    mean = member.count_bytes_of_mean_loss(width, _find_bytes_of_loss(plan))
    if plan.parts:
        mean += _count_bytes_of_parts(plan, member, width)
    elif width > 1:
        mean += member.count_bytes_of_sum(sum(numbers.values()), width)
    inner = _count_leaves(plan.experiment.optimizer) * mean
    products = _count_iterations(plan) * member.count_bytes_of_sum(sum(numbers.values()), width) if width > 1 else 0
    steps = plan.experiment.optimizer.inner_steps if isinstance(plan.experiment.optimizer, spec.GaussNewton) else 1
    return Device(member.rank, computed, (), computed / width, inner + products, steps * (inner + products) + search)


def _count_bytes_of_parts(plan: Plan, member: Member, width: int) -> int:
    """Return the bytes that it sends for an update by parts: gradients to owners, moved weights to all, and norms."""
    owners = assign_parts(plan.parts, member.size)
    own = sum(part.numbers for name, part in plan.parts.items() if owners[name] == member.rank)
    numbers = sum(part.numbers for part in plan.parts.values())
    most = max(map(len, list_owned(owners, member.size)))
    method = plan.experiment.optimizer
    first_order = method.inner if isinstance(method, spec.GaussNewton) else method
    norms = 2 + (isinstance(first_order, spec.Method) and first_order.clip is not None)
    gradients = member.count_bytes_to_owners(numbers, own, width) if width > 1 else 0
    return gradients + (own + norms * most) * BYTES * (member.size - 1)


def _count_bytes_of_search(plan: Plan, member: Member, numbers: int) -> int:
    method = plan.experiment.optimizer
    if not isinstance(method, spec.GaussNewton):
        return 0
    match method.search:
        case search.GeometricSearch(trials=trials, microbatches=count):
            return (trials + 2) * member.count_bytes_of_losses(count)
        case search.BracketSearch(microbatches=count):
            return 5 * member.count_bytes_of_losses(count)
        case search.Decrement(microbatches=count):
            return 3 * member.count_bytes_of_losses(count) + (
                member.count_bytes_of_sum(numbers, count) if count > 1 else 0
            )
        case search.NoSearch():
            return 0
        case _:
            assert_never(method.search)


def _count_iterations(plan: Plan) -> int:
    method = plan.experiment.optimizer
    inner = method.inner if isinstance(method, spec.GaussNewton) else None
    return inner.iterations if isinstance(inner, spec.ConjugateGradients) else 0


def explain_limit(plan: Plan) -> str:
    """Say what bounds the number of devices."""
    if plan.blocks:
        return f"at most {len(plan.blocks)}, one for each block"
    width, shares = count_microbatches_of_mean(plan), plan.experiment.training.shares
    if shares < width:
        return f"at most {shares}, the `training.shares`"
    return f"at most {width}, one for each micro-batch of a mean"


def require_use(plan: Plan, size: int) -> None:
    """Raise SpecError if some of so many devices would have nothing to do."""
    if size == 1:
        return
    training, width = plan.experiment.training, count_microbatches_of_mean(plan)
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


def count_microbatches_of_mean(plan: Plan) -> int:
    """Return the number of micro-batches that a gradient is averaged over."""
    method = plan.experiment.optimizer
    width = plan.cost.solve // method.inner_steps if isinstance(method, spec.GaussNewton) else plan.cost.solve
    whole = isinstance(method, spec.MlFopSoap) and method.by_modality
    return width if whole else width // _count_leaves(method)


def _find_bytes_of_loss(plan: Plan) -> int:
    """Return the size of the model's value. The damping is a number of 8 bytes, and so is a value with it."""
    method = plan.experiment.optimizer
    if not isinstance(method, spec.GaussNewton):
        return BYTES
    inner = method.inner
    return 2 * BYTES if (inner.damping if isinstance(inner, spec.ConjugateGradients) else method.damping) else BYTES


def _count_leaves(method: spec.Optimizer) -> int:
    """Return the number of mean gradients of an update."""
    if isinstance(method, spec.MlFopSoap) and method.by_modality:
        return 2
    return method.leaves if isinstance(method, spec.FopSoap | spec.MlFopSoap) else 1
