"""The part that methods of momentum share: gradients are averaged, and each update is a function of the average.

M <- M + (1 - b)(G - M)
U <- direction of  G + b (M - G)  (Nesterov)  or of M
                   b M / (1 - b^(t+1)) + (1 - b) G / (1 - b^t)  (Nesterov, unbiased; t counts from 1)
W <- W - lr (U + decay W)
"""

from collections.abc import Callable
from math import prod
from typing import NamedTuple

import torch
from torch import Tensor

from gnflow import trees
from gnflow.objective import Params
from gnflow.optim.decay import add_decay
from gnflow.optim.protocol import Transform, make_counter, make_rate, refuse_shape
from gnflow.optim.schedules import Schedule, constant
from gnflow.spec.base import join_with_or
from gnflow.spec.rules import Cautious


class MomentumState(NamedTuple):
    """Updates made, learning rate, momentum, and the second moment of methods that keep one."""

    updates: Tensor
    learning_rate: Tensor
    momentum: Params
    second: Params


class Direction(NamedTuple):
    """The function that turns a momentum into what is subtracted at learning rate 1. All trees are of matrices."""

    turn: Callable[[Params, Params, Params], tuple[Params, Params]]
    """(momentum, gradients, second) -> (direction, second)"""
    second: Callable[[Tensor], Tensor] | None = None
    """A weight -> its second moment before the first update; None if the method keeps none."""


def turn_alone(turn: Callable[[Params], Params]) -> Direction:
    """Make a direction that depends on the momentum alone."""
    return Direction(lambda followed, gradients, second: (turn(followed), second))


def follow_momentum(
    method: str,
    direction: Direction,
    learning_rate: float,
    momentum: float,
    nesterov: bool,
    weight_decay: float | Cautious,
    schedule: Schedule | None,
    split: int = 1,
    unbiased: bool = False,
) -> Transform[MomentumState]:
    """Make a transform that moves along `direction`. Errors begin with `method`.

    `direction` sees each weight as `split` matrices of equal size, stacked. `unbiased` is about Nesterov's momentum.
    """
    factor = schedule or constant()

    def init(params: Params) -> MomentumState:
        require_matrices(method, params)
        for name, value in params.items():
            if value.shape[-2] % split:
                shape = tuple(value.shape)
                raise ValueError(f"{method} cannot split the rows of `{name}`, of shape {shape}, into {split} matrices")
        second = {} if direction.second is None else {name: direction.second(w) for name, w in params.items()}
        return MomentumState(make_counter(params), make_rate(learning_rate, params), trees.zeros(params), second)

    def average(gradients: Params, state: MomentumState) -> Params:
        return average_gradients(gradients, state.momentum, momentum)

    def look_ahead(gradients: Params, average: Params, count: Tensor) -> Params:
        return split_rows(choose_followed(gradients, average, momentum, nesterov, count if unbiased else None))

    def split_rows(tree: Params) -> Params:
        return tree if split == 1 else {name: _split_rows(x, split) for name, x in tree.items()}

    def update(gradients: Params, state: MomentumState, params: Params) -> tuple[Params, MomentumState]:
        lr = state.learning_rate * factor(state.updates)
        mean = average(gradients, state)
        followed = look_ahead(gradients, mean, state.updates + 1)
        turned, second = direction.turn(followed, split_rows(gradients), split_rows(state.second))
        updates = {}
        for name, towards in turned.items():
            w = params[name]
            u = towards.reshape(w.shape)
            updates[name] = -lr * add_decay(weight_decay, u, w)
        kept = {name: v.reshape(state.second[name].shape) for name, v in second.items()}
        return updates, MomentumState(state.updates + 1, state.learning_rate, mean, kept)

    def find_momentum(gradients: Params, state: MomentumState) -> Params:
        return look_ahead(gradients, average(gradients, state), state.updates + 1)

    return Transform(init, update, momentum=find_momentum)


def average_gradients(gradients: Params, before: Params, momentum: float) -> Params:
    """Return M + (1 - b)(G - M)."""
    return {name: _mix(m, gradients[name], 1 - momentum) for name, m in before.items()}


def _mix(a: Tensor, b: Tensor, weight: float) -> Tensor:
    """Return a + weight (b - a). Gradients may have another type than their parameters."""
    return torch.lerp(a, b, weight) if a.dtype == b.dtype else a + weight * (b - a)


def choose_followed(
    gradients: Params, average: Params, momentum: float, nesterov: bool, count: Tensor | None = None
) -> Params:
    """Return G + b (M - G) with Nesterov's momentum, or else M. With a `count` of updates, M and G are unbiased."""
    if count is not None:
        b, now, ahead = momentum, 1 - momentum ** count.double(), 1 - momentum ** (count + 1).double()
        return {name: b * average[name] / ahead + (1 - b) * g / now for name, g in gradients.items()}
    return {name: _mix(g, average[name], momentum) for name, g in gradients.items()} if nesterov else average


def require_matrices(method: str, params: Params) -> None:
    """Raise ValueError, in the name of `method`, for a parameter that is neither a matrix nor a stack of them."""
    for name, value in params.items():
        if value.ndim not in (2, 3):
            raise refuse_shape(method, "matrices and stacks of them", name, value)


def require_choice(method: str, option: str, value: str, choices: tuple[str, ...]) -> None:
    """Raise ValueError if `value` is none of the choices."""
    if value not in choices:
        expected = join_with_or([f"`{choice}`" for choice in choices])
        raise ValueError(f"{method}'s {option} is {expected}, not `{value}`")


def _split_rows(x: Tensor, split: int) -> Tensor:
    """Return a view: (k, split m, n) -> (k split, m, n)."""
    return x.reshape(prod(x.shape[:-2]) * split, x.shape[-2] // split, x.shape[-1])
