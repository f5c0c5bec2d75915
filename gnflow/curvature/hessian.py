"""The Hessian of a loss times a direction, by forward mode over reverse mode."""

from collections.abc import Callable
from typing import cast

import torch

from gnflow import trees
from gnflow.objective import Params, Scalar, Tokens


def make_hessian_product(value: Callable[[Params, Tokens], Scalar]) -> Callable[[Params, Params, Tokens], Params]:
    """Return (direction, anchor, tokens) -> H direction, which can serve as `Objective.product`.

    `direction` may name a part of the anchor's parameters.
    """

    def product(direction: Params, anchor: Params, tokens: Tokens) -> Params:
        slope = torch.func.grad(lambda part: value({**anchor, **part}, tokens))
        pushforward = torch.func.jvp(slope, (trees.pick(anchor, direction),), (direction,))
        # torch does not type the transform by its arguments.
        return cast("tuple[Params, Params]", pushforward)[1]

    return product
