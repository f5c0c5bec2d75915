"""The second-order expansion of the loss at an anchor: the model of Newton's method, which need not be convex.

    L(w) + <g, d> + <d, H d> / 2      gradient g + H d,  d = params - w,  H the Hessian of the loss itself

H = G + the curvature of the network along the error. Gauss-Newton keeps G alone. A product with H takes forward mode
over reverse mode, about twice the work of one with G, so this model is a reference for small problems. It may have no
minimum. That does no harm: a first-order inner optimizer takes only a few steps on it, conjugate gradients stop at
negative curvature, and the search decides by the loss.

Source:   Pearlmutter 1994, "Fast exact multiplication by the Hessian"
"""

from collections.abc import Callable
from typing import TypeAlias, cast

import torch

from gnflow import trees
from gnflow.objective import Params, Scalar, Tokens

Sloped: TypeAlias = tuple[Params, Scalar]


def expand(loss: Callable[[Params, Tokens], Scalar]) -> Callable[[Params, Params, Tokens], Sloped]:
    """Make the `Objective.curved` of Newton's model. `curvature.hessian` makes the `product` that belongs to it."""

    def curved(params: Params, anchor: Params, tokens: Tokens) -> Sloped:
        displacement = trees.subtract(params, trees.pick(anchor, params))
        sloped = torch.func.grad_and_value(lambda part: loss({**anchor, **part}, tokens))
        pushforward = torch.func.jvp(sloped, (trees.pick(anchor, params),), (displacement,))
        # torch does not type the transform by its arguments.
        (slope, value), (bend, fall) = cast("tuple[Sloped, Sloped]", pushforward)
        return trees.add(slope, bend), value + fall + 0.5 * trees.dot(displacement, bend)

    return curved
