"""The diagonal statistics of an optimizer, in its own coordinates, where its transform says that it has them."""

from collections.abc import Callable
from typing import NamedTuple

from gnflow.objective import Params
from gnflow.optim.descent import Descent
from gnflow.optim.frozen import Frozen
from gnflow.optim.gauss_newton import GaussNewton
from gnflow.optim.protocol import AnyState, Optimizer
from gnflow.optim.stacks import Stacks


class Preconditioner(NamedTuple):
    """`Fisher` at one state, from parameters by name into coordinates by stack; of the parameters that have any."""

    names: tuple[str, ...]
    diagonal: Params
    """By stack."""
    into: Callable[[Params], Params]
    back: Callable[[Params], Params]


def preconditioners(optimizer: Optimizer, state: AnyState) -> list[Preconditioner]:
    """One for each solve; none of transforms without `metric`, of conjugate gradients, or before the first update."""
    match optimizer:
        case Frozen():
            return preconditioners(optimizer.inner, state)
        case GaussNewton():
            inner = [(block.inner, state.inner[name]) for name, block in optimizer.blocks.items()]
            return [found for each in inner for found in preconditioners(*each)]
        case Descent():
            return _of(optimizer, state)
        case _:
            return []


def _of(optimizer: Descent, state: AnyState) -> list[Preconditioner]:
    if (metric := optimizer.transform.metric) is None:
        return []
    diagonal = metric.diagonal(state)
    if not any(bool(values.any()) for values in diagonal.values()):
        return []
    members = {stack: optimizer.stacks.members[stack] for stack in diagonal}
    stacks = Stacks(members, optimizer.stacks.shapes)
    return [
        Preconditioner(
            tuple(name for names in members.values() for name in names),
            diagonal,
            lambda tree: metric.into(stacks.stack(tree), state),
            lambda tree: stacks.unstack(metric.back(tree, state)),
        )
    ]
