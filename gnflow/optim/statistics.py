"""The diagonal statistics of an optimizer, in its own coordinates, where its transform says that it has them."""

from gnflow.objective import Params
from gnflow.optim.protocol import AnyState, AnyTransform, Diagonal, Optimizer
from gnflow.optim.stacks import Stacks


def find_diagonals(optimizer: Optimizer, params: Params, state: AnyState) -> list[Diagonal]:
    """One for each solver; none of transforms without `metric`, of conjugate gradients, or before the first update."""
    found = (part.solver.diagonal(part.state) for part in optimizer.parts(params, state))
    return [diagonal for diagonal in found if diagonal is not None]


def find_diagonal(transform: AnyTransform, stacks: Stacks, state: AnyState) -> Diagonal | None:
    """The statistics of a transform over these stacks."""
    if (metric := transform.metric) is None:
        return None
    values = metric.diagonal(state)
    if not any(bool(each.any()) for each in values.values()):
        return None
    own = stacks.only(values)
    return Diagonal(
        tuple(name for names in own.members.values() for name in names),
        values,
        lambda tree: metric.into(own.stack(tree), state),
        lambda tree: own.unstack(metric.back(tree, state)),
    )
