"""What methods of momentum share: gradients are averaged, and each update is a function of the average.

M <- M + (1 - b)(G - M)
U <- direction of  G + b (M - G)  (Nesterov)  or of M
W <- W - lr (U + decay W)
"""

from collections.abc import Callable
from typing import Literal, NamedTuple, TypeAlias

from torch import Tensor

from gnflow import trees
from gnflow.objective import Params
from gnflow.optim.decay import decay_rates
from gnflow.optim.protocol import Transform, counter, rate
from gnflow.optim.schedules import Schedule, constant
from gnflow.spec.base import listed
from gnflow.spec.rules import Cautious

Scale: TypeAlias = Literal["original", "match_rms"]


class MomentumState(NamedTuple):
    """Updates made, learning rate, momentum; and a second moment of the methods that keep one."""

    updates: Tensor
    learning_rate: Tensor
    momentum: Params
    second: Params


class Direction(NamedTuple):
    """What is subtracted at learning rate 1, and a second moment that it keeps. All trees are of matrices."""

    of: Callable[[Params, Params, Params], tuple[Params, Params]]
    """(momentum, gradients, second) -> (direction, second)"""
    second: Callable[[Tensor], Tensor] | None = None
    """A weight -> its second moment before the first update; None where no moment is kept."""


def without_memory(direction: Callable[[Params], Params]) -> Direction:
    """A direction that the momentum alone decides."""
    return Direction(lambda followed, gradients, second: (direction(followed), second))


def along_momentum(
    method: str,
    direction: Direction,
    learning_rate: float,
    momentum: float,
    nesterov: bool,
    weight_decay: float | Cautious,
    schedule: Schedule | None,
    split: int = 1,
) -> Transform[MomentumState]:
    """`direction` sees each weight as `split` matrices of equal size, stacked.

    `method` names who refuses what is no matrix.
    """
    factor = schedule or constant()

    def init(params: Params) -> MomentumState:
        require_matrices(method, params)
        for name, value in params.items():
            if value.shape[-2] % split:
                shape = tuple(value.shape)
                raise ValueError(f"{method} cannot split the rows of `{name}`, of shape {shape}, into {split} matrices")
        second = {} if direction.second is None else {name: direction.second(w) for name, w in params.items()}
        return MomentumState(counter(params), rate(learning_rate, params), trees.zeros(params), second)

    def averaged(gradients: Params, state: MomentumState) -> Params:
        return {name: m + (1 - momentum) * (gradients[name] - m) for name, m in state.momentum.items()}

    def ahead(gradients: Params, average: Params) -> Params:
        if not nesterov:
            return apart(average)
        return apart({name: g + momentum * (average[name] - g) for name, g in gradients.items()})

    def apart(tree: Params) -> Params:
        return tree if split == 1 else {name: _parts(x, split) for name, x in tree.items()}

    def update(gradients: Params, state: MomentumState, params: Params) -> tuple[Params, MomentumState]:
        lr = state.learning_rate * factor(state.updates)
        average = averaged(gradients, state)
        directions, second = direction.of(ahead(gradients, average), apart(gradients), apart(state.second))
        updates = {}
        for name, direct in directions.items():
            w = params[name]
            u = direct.reshape(w.shape)
            updates[name] = -lr * (u + decay_rates(weight_decay, u, w) * w)
        second = {name: v.reshape(state.second[name].shape) for name, v in second.items()}
        return updates, MomentumState(state.updates + 1, state.learning_rate, average, second)

    return Transform(init, update, momentum=lambda gradients, state: ahead(gradients, averaged(gradients, state)))


def require_matrices(method: str, params: Params) -> None:
    """Raises ValueError, in the name of `method`, for what is neither a matrix nor a stack of them."""
    for name, value in params.items():
        if value.ndim not in (2, 3):
            raise ValueError(f"{method} takes matrices and stacks of them; `{name}` has shape {tuple(value.shape)}")


def require_choice(method: str, option: str, value: str, choices: tuple[str, ...]) -> None:
    """Raises ValueError for a misspelt one."""
    if value not in choices:
        expected = listed([f"`{choice}`" for choice in choices])
        raise ValueError(f"{method}'s `{option}` is {expected}, not `{value}`")


def _parts(x: Tensor, split: int) -> Tensor:
    """(k, split m, n) -> (k split, m, n), as a view."""
    *_, m, n = x.shape
    return x.reshape(x.shape[:-2].numel() * split, m // split, n)
