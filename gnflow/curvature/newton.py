"""The loss to second order at an anchor: the model of Newton's method, which need not be convex.

    L(w) + <g, d> + <d, H d> / 2      gradient g + H d,  d = params - w,  H the Hessian of the loss itself

H = G + the curvature of the network along the error: G is what Gauss-Newton keeps. A product is forward mode over
reverse mode, about twice the work of one with G: a reference for small problems. The model may have no minimum. A
first-order inner optimizer only takes its few steps on it, conjugate gradients stop at negative curvature, and the
search decides on the loss.

Source:   Pearlmutter 1994, "Fast exact multiplication by the Hessian"
"""

from collections.abc import Callable
from typing import TypeAlias, cast

import torch

from gnflow import trees
from gnflow.objective import Params, Scalar, Tokens

Loss: TypeAlias = Callable[[Params, Tokens], Scalar]
Sloped: TypeAlias = tuple[Params, Scalar]


def expanded(loss: Loss) -> Callable[[Params, Params, Tokens], Sloped]:
    """`Objective.curved` of Newton's model."""

    def curved(params: Params, anchor: Params, tokens: Tokens) -> Sloped:
        displacement = trees.subtract(params, trees.pick(anchor, params))
        (slope, value), (bend, fall) = _pushed(loss, anchor, displacement, tokens)
        return trees.add(slope, bend), value + fall + 0.5 * trees.dot(displacement, bend)

    return curved


def hessian(loss: Loss) -> Callable[[Params, Params, Tokens], Params]:
    """`Objective.product`: H times a direction."""

    def product(direction: Params, anchor: Params, tokens: Tokens) -> Params:
        _, (bend, _) = _pushed(loss, anchor, direction, tokens)
        return bend

    return product


def _pushed(loss: Loss, anchor: Params, direction: Params, tokens: Tokens) -> tuple[Sloped, Sloped]:
    """((g, L), (H direction, <g, direction>)), of the parameters that `direction` names."""
    sloped = torch.func.grad_and_value(lambda part: loss({**anchor, **part}, tokens))
    pushed = torch.func.jvp(sloped, (trees.pick(anchor, direction),), (direction,))
    return cast("tuple[Sloped, Sloped]", pushed)
