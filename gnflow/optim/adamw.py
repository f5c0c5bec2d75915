"""Adam with decoupled weight decay.

    M <- b1 M + (1 - b1) G
    V <- b2 V + (1 - b2) G^2
    W <- W - lr [ M / (1 - b1^t) / (sqrt(V / (1 - b2^t)) + eps) + decay W ]

    nesterov:  b1 M / (1 - b1^(t+1)) + (1 - b1) G / (1 - b1^t)  in place of  M / (1 - b1^t)

Source:   Loshchilov & Hutter 2019, arXiv:1711.05101; nesterov: Dozat 2016, openreview.net/forum?id=OM0jvwB8jIp57ZJjtNEZ
Code:     torch.optim.AdamW; nesterov: optax.adamw(nesterov=True)
Differs:  nothing but the order of two roundings. torch.optim.NAdam also lets b1 grow with the steps, and this does not
Use:      embedding, head and vectors beside a method of matrices, and as the baseline; it takes tensors of any shape
"""

from typing import NamedTuple

from torch import Tensor

from gnflow import trees
from gnflow.objective import Params
from gnflow.optim.arguments import add_help_of
from gnflow.optim.decay import add_decay
from gnflow.optim.protocol import Fisher, Transform, make_counter, make_rate
from gnflow.optim.schedules import Schedule, constant
from gnflow.spec.rules import AdamWRule, Cautious


class AdamWState(NamedTuple):
    """Updates made, learning rate, and the two moments."""

    updates: Tensor
    learning_rate: Tensor
    first: Params
    second: Params


@add_help_of(AdamWRule)
def adamw(
    learning_rate: float = 3e-3,
    betas: tuple[float, float] = (0.9, 0.95),
    eps: float = 1e-8,
    weight_decay: float | Cautious = 0.0,
    schedule: Schedule | None = None,
    *,
    nesterov: bool = False,
) -> Transform[AdamWState]:
    """Make AdamW for any dict of tensors."""
    factor = schedule or constant()
    b1, b2 = betas

    def init(params: Params) -> AdamWState:
        return AdamWState(
            make_counter(params), make_rate(learning_rate, params), trees.zeros(params), trees.zeros(params)
        )

    def update(gradients: Params, state: AdamWState, params: Params) -> tuple[Params, AdamWState]:
        return feed(gradients, gradients, gradients, state, params)

    def feed(
        direction: Params, factors: Params, second: Params, state: AdamWState, params: Params
    ) -> tuple[Params, AdamWState]:
        count = state.updates + 1
        lr = state.learning_rate * factor(state.updates)
        correction2 = 1 - b2 ** count.double()
        first = {name: b1 * state.first[name] + (1 - b1) * g for name, g in direction.items()}
        square = {name: b2 * state.second[name] + (1 - b2) * g * g for name, g in second.items()}
        updates = {}
        for name, w in params.items():
            root = (square[name] / correction2).sqrt() + eps
            u = look_ahead(first[name], direction[name], count) / root
            updates[name] = -lr * add_decay(weight_decay, u, w)
        return updates, AdamWState(count, state.learning_rate, first, square)

    def look_ahead(first: Tensor, gradient: Tensor, count: Tensor) -> Tensor:
        correction = 1 - b1 ** count.double()
        if not nesterov:
            return first / correction
        return b1 * first / (1 - b1 ** (count + 1).double()) + (1 - b1) * gradient / correction

    def diagonal(state: AdamWState) -> Params:
        correction = 1 - b2 ** state.updates.clamp(min=1).double()
        return {name: v / correction for name, v in state.second.items()}

    def keep(tree: Params, state: AdamWState) -> Params:
        return tree

    return Transform(init, update, metric=Fisher(keep, keep, diagonal, feed))
