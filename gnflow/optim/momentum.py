"""What methods of momentum share: gradients are averaged, and each update is a function of the average.

M <- M + (1 - b)(G - M)
U <- direction of  G + b (M - G)  (Nesterov)  or of M
W <- W - lr (U + decay W)
"""

from collections.abc import Callable
from math import prod
from typing import Literal, NamedTuple, TypeAlias

from torch import Tensor

from gnflow import trees
from gnflow.objective import Params
from gnflow.optim.protocol import Transform, make_counter, make_rate, unfit
from gnflow.optim.schedules import Schedule, constant

Scale: TypeAlias = Literal["original", "match_rms"]


class MomentumState(NamedTuple):
    """Updates made, learning rate, momentum."""

    updates: Tensor
    learning_rate: Tensor
    momentum: Params


def along_momentum(
    method: str,
    direction: Callable[[Params], Params],
    learning_rate: float,
    momentum: float,
    nesterov: bool,
    weight_decay: float,
    schedule: Schedule | None,
    split: int = 1,
) -> Transform[MomentumState]:
    """`direction` maps momentum matrices to what is subtracted at learning rate 1.

    It sees each weight as `split` matrices of equal size, stacked. `method` names who refuses what is no matrix.
    """
    factor = schedule or constant()

    def init(params: Params) -> MomentumState:
        for name, value in params.items():
            shape = tuple(value.shape)
            if value.ndim not in (2, 3):
                raise unfit(method, "matrices and stacks of them", name, value)
            if value.shape[-2] % split:
                raise ValueError(f"{method} cannot split the rows of `{name}`, of shape {shape}, into {split} matrices")
        return MomentumState(make_counter(params), make_rate(learning_rate, params), trees.zeros(params))

    def averaged(gradients: Params, state: MomentumState) -> Params:
        return {name: m + (1 - momentum) * (gradients[name] - m) for name, m in state.momentum.items()}

    def ahead(gradients: Params, average: Params) -> Params:
        followed = average
        if nesterov:
            followed = {name: g + momentum * (average[name] - g) for name, g in gradients.items()}
        return followed if split == 1 else {name: _parts(x, split) for name, x in followed.items()}

    def update(gradients: Params, state: MomentumState, params: Params) -> tuple[Params, MomentumState]:
        lr = state.learning_rate * factor(state.updates)
        average = averaged(gradients, state)
        followed = ahead(gradients, average)
        empty = {name: x for name, x in followed.items() if not x.numel()}  # these have no direction and need none
        towards = {**direction({name: x for name, x in followed.items() if name not in empty}), **empty}
        updates = {
            name: -lr * (u.reshape(params[name].shape) + weight_decay * params[name]) for name, u in towards.items()
        }
        return updates, MomentumState(state.updates + 1, state.learning_rate, average)

    return Transform(init, update, momentum=lambda gradients, state: ahead(gradients, averaged(gradients, state)))


def require_scale(method: str, scale: str) -> None:
    """Raises ValueError if `scale` is not the name of a scale."""
    if scale not in ("original", "match_rms"):
        raise ValueError(f"{method}'s scale is `original` or `match_rms`, not `{scale}`")


def _parts(x: Tensor, split: int) -> Tensor:
    """(k, split m, n) -> (k split, m, n), as a view."""
    return x.reshape(prod(x.shape[:-2]) * split, x.shape[-2] // split, x.shape[-1])
