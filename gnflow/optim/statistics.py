"""Finds the diagonal statistics of an optimizer, in its own coordinates, if its transform keeps any."""

from gnflow.objective import Params
from gnflow.optim.protocol import AnyState, AnyTransform, Diagonal, Optimizer
from gnflow.optim.stacks import Stacks


def find_diagonals(optimizer: Optimizer, params: Params, state: AnyState) -> list[Diagonal]:
    """Find the statistics of each solver.

    There are none for transforms without a Fisher metric, for conjugate gradients, and before the first update.
    """
    found = (part.solver.diagonal(part.state) for part in optimizer.parts(params, state))
    return [diagonal for diagonal in found if diagonal is not None]


def find_diagonal(transform: AnyTransform, stacks: Stacks, state: AnyState) -> Diagonal | None:
    """Find the statistics of a transform over these stacks, or None if it has none yet."""
    if (metric := transform.metric) is None:
        return None
    values = metric.diagonal(state)
    if not any(bool(each.any()) for each in values.values()):
        return None
    own = stacks.pick(values)
    return Diagonal(
        tuple(name for names in own.members.values() for name in names),
        values,
        lambda tree: metric.into(own.stack(tree), state),
        lambda tree: own.unstack(metric.back(tree, state)),
    )
