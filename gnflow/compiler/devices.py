"""Predict what each of several devices computes and sends in a run, and refuse devices without work."""

from math import prod
from typing import NamedTuple, assert_never

from gnflow.compiler.blocks import assign_blocks
from gnflow.compiler.member import BYTES, Member
from gnflow.compiler.parts import PartCost, assign_parts
from gnflow.compiler.plan import Plan, measure_member
from gnflow.crew import list_owned
from gnflow.errors import SpecError
from gnflow.optim.by_part import Ownership
from gnflow.spec import optimizer as spec
from gnflow.spec import search
from gnflow.spec.traits import has_clip


class Device(NamedTuple):
    """The part that one process has in a step."""

    rank: int
    microbatches: int
    """Number of micro-batches that it computes for a mean of gradients."""
    blocks: tuple[str, ...]
    """The blocks that it solves for, if the method is layerwise."""
    parts: int
    """Number of parts whose updates it makes, if updates are made by parts."""
    work: float
    """Its passes in a solve, relative to those of one device."""
    update: float
    """Its cost of updates, relative to that of one device."""
    sent_inner: int
    """Bytes that it sends in an inner step of Gauss-Newton, or in a step of a first-order method."""
    sent: int
    """Bytes that it sends in a step. The messages that agree on what to do next are not among them."""


def share_out(plan: Plan, size: int) -> list[Device]:
    """Return the parts of `size` processes. Raises SpecError if some would have nothing to do."""
    require_use(plan, size)
    return [_describe_part(plan, member) for member in _make_members(plan, size)]


def measure_memory(plan: Plan, size: int) -> list[dict[str, int]]:
    """Return the bytes of each process by class, at the peak of an eager step.

    `exchange` is what it sends and receives at a time. `activations` and `copies` are those of the process with the
    largest state.
    """
    members, numbers = (
        _make_members(plan, size),
        sum(prod(row.shape) for row in plan.parameters if row.method != "none"),
    )
    if size == 1:
        return [{**plan.memory, "exchange": 0}]
    if plan.blocks:
        # The solved weights of one process at a time.
        return [{**plan.memory, "exchange": BYTES * numbers} for _ in members]
    states = [sum(part.state for part in _list_own(plan, member)) for member in members]
    busiest = members[states.index(max(states))]
    ownership = Ownership(busiest.rank, busiest.owners) if plan.parts else None
    # Gauss-Newton takes the owners of a crew for those of blocks.
    crew = Member(busiest.rank, size, busiest.shares, {})
    found, width = measure_member(plan, crew, ownership), count_microbatches_of_mean(plan)
    rows = []
    for member, state in zip(members, states, strict=True):
        owned = sum(part.numbers for part in _list_own(plan, member)) if plan.parts else None
        optimizer = found["optimizer"] - max(states) + state
        rows.append({**found, "optimizer": optimizer, "exchange": member.count_bytes_held(numbers, owned, width)})
    return rows


def _make_members(plan: Plan, size: int) -> list[Member]:
    owners = assign_blocks(plan.blocks, size) if plan.blocks else assign_parts(plan.parts, size)
    return [Member(rank, size, plan.experiment.training.shares, owners) for rank in range(size)]


def _list_own(plan: Plan, member: Member) -> list[PartCost]:
    return [part for name, part in plan.parts.items() if member.owners[name] == member.rank]


def _describe_part(plan: Plan, member: Member) -> Device:
    width = count_microbatches_of_mean(plan)
    numbers = {row.name: prod(row.shape) for row in plan.parameters if row.method != "none"}
    total = sum(numbers.values())
    search = _count_bytes_of_search(plan, member, total)
    if plan.blocks:
        own = tuple(name for name, owner in member.owners.items() if owner == member.rank)
        goal = sum(numbers[name] for block in own for name in plan.blocks[block].names)
        work = sum(plan.blocks[name].share for name in own) / sum(block.share for block in plan.blocks.values())
        sent = goal * BYTES * (member.size - 1) + search
        solved = sum(numbers[name] for block in plan.blocks.values() for name in block.names)
        return Device(member.rank, width, own, 0, work, goal / solved, 0, sent)
    computed = len(member.pick_own(member.list_summed(width)))
    mean = member.count_bytes_of_mean_loss(width, _find_bytes_of_loss(plan))
    parts, update = 0, 1.0
    if plan.parts:
        mine = _list_own(plan, member)
        parts, owned = len(mine), sum(part.numbers for part in mine)
        update = sum(part.cost for part in mine) / sum(part.cost for part in plan.parts.values())
        mean += _count_bytes_of_parts(plan, member, width, owned, max(map(len, list_owned(member.owners, member.size))))
    elif width > 1:
        mean += member.count_bytes_of_sum(total, width)
    inner = _count_leaves(plan.experiment.optimizer) * mean
    products = _count_iterations(plan) * member.count_bytes_of_sum(total, width) if width > 1 else 0
    steps = plan.experiment.optimizer.inner_steps if isinstance(plan.experiment.optimizer, spec.GaussNewton) else 1
    sent = steps * (inner + products) + search + _count_bytes_of_estimates(plan, member, width)
    return Device(member.rank, computed, (), parts, computed / width, update, inner + products, sent)


def _count_bytes_of_estimates(plan: Plan, member: Member, width: int) -> int:
    """Return the bytes that it sends for means of estimates of curvature, on average over the steps."""
    if width == 1:
        return 0
    return round(sum(n / width * member.count_bytes_of_sum(size, width) for size, n in plan.observed.items()))


def _count_bytes_of_parts(plan: Plan, member: Member, width: int, owned: int, most: int) -> int:
    """Return the bytes that it sends for an update by parts: gradients to owners, moved weights to all, and norms.

    It owns so many numbers, and a process owns at most so many parts.
    """
    numbers = sum(part.numbers for part in plan.parts.values())
    method = plan.experiment.optimizer
    first_order = method.inner if isinstance(method, spec.GaussNewton) else method
    norms = 2 + (isinstance(first_order, spec.Method) and has_clip(first_order))
    gradients = member.count_bytes_to_owners(numbers, owned, width) if width > 1 else 0
    return gradients + (owned + norms * most) * BYTES * (member.size - 1)


def _count_bytes_of_search(plan: Plan, member: Member, numbers: int) -> int:
    method = plan.experiment.optimizer
    if not isinstance(method, spec.GaussNewton):
        return 0
    checks = len(method.checks) + bool(method.checks)
    match method.search:
        case search.GeometricSearch(trials=trials, microbatches=count):
            return (trials + 2 + checks) * member.count_bytes_of_losses(count)
        case search.BracketSearch(microbatches=count):
            return (5 + checks) * member.count_bytes_of_losses(count)
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
        if _solves_twice(plan):
            return "at most one, since `blocks: prefix` solves for some weights twice"
        return f"at most {len(plan.blocks)}, one for each block"
    width, shares = count_microbatches_of_mean(plan), plan.experiment.training.shares
    if shares < width:
        return f"at most {shares}, the `training.shares`"
    return f"at most {width}, one for each micro-batch of a mean"


def _solves_twice(plan: Plan) -> bool:
    names = [name for block in plan.blocks.values() for name in block.names]
    return len(set(names)) < len(names)


def require_use(plan: Plan, size: int) -> None:
    """Raise SpecError if some of so many devices would have nothing to do."""
    if size == 1:
        return
    training, width = plan.experiment.training, count_microbatches_of_mean(plan)
    if plan.blocks:
        if _solves_twice(plan):
            raise SpecError(
                "`optimizer.blocks: prefix` solves for some weights twice, so it runs on one device; "
                "set `blocks: layer` to use several"
            )
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
