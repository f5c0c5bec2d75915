"""A function and its Jacobian J at a point, both ways: J d pushed forward, and a cotangent pulled back.

    pushed         J d by forward mode, exact
    differenced    J d = (f(point + h d) - f(point)) / h,   h |d| = sqrt(eps) |point| / 4
    at_rest        no d

The difference costs one more value of f, forward mode two: the tangent of W x is W x' and W' x. No exact scheme gets by
with less. Three is the rank of the product of dual numbers, two is their border rank, which the difference takes. Of
the logits of small decoders in float32 it is off by about 1e-3 of J d, as much by what bends in h as by rounding.

Source:   Alder and Strassen 1981, doi:10.1016/0304-3975(81)90070-0 (the rank)
Source:   Knoll and Keyes 2004, doi:10.1016/j.jcp.2003.08.010, section 2.1 (J d by differences, and their step)
Differs:  the step is relative to |point|, not to 1 + |point|
"""

from collections.abc import Callable
from typing import Literal, TypeAlias, cast

import torch
from torch import Tensor

from gnflow import trees
from gnflow.objective import Params

Pulled: TypeAlias = tuple[Tensor, Callable[[Tensor], tuple[Params]], Tensor]
Pull: TypeAlias = Callable[[Callable[[Params], Tensor], Params, Params], Pulled]
"""(function, point, displacement of a part of it) -> (value, cotangent -> (gradient of the part,), tangent)"""
Tangent: TypeAlias = Literal["exact", "difference"]


def pushed(function: Callable[[Params], Tensor], point: Params, displacement: Params) -> Pulled:
    """Nothing is differentiated through the tangent, which rides along."""

    def forward(part: Params) -> tuple[Tensor, Tensor]:
        pushforward = torch.func.jvp(lambda p: function({**point, **p}), (part,), (displacement,))
        return cast("tuple[Tensor, Tensor]", pushforward)

    # torch types neither transform by its arguments.
    return cast("Pulled", torch.func.vjp(forward, trees.pick(point, displacement), has_aux=True))


def differenced(function: Callable[[Params], Tensor], point: Params, displacement: Params) -> Pulled:
    """The second value keeps no activations."""
    value, pullback, _ = at_rest(function, point, displacement)
    part = trees.pick(point, displacement)
    size, length = trees.norm(part), trees.norm(displacement)
    least = torch.finfo(value.dtype).tiny ** 0.5
    h = 0.25 * torch.finfo(value.dtype).eps ** 0.5 * torch.where(size > 0, size, 1.0) / length.clamp(min=least)
    beside = function({**point, **trees.along(part, displacement, h)})
    return value, pullback, (beside - value) / h


def at_rest(function: Callable[[Params], Tensor], point: Params, part: Params) -> Pulled:
    """In the place of the tangent is the value; of `part` only the names count."""
    value, pullback = torch.func.vjp(lambda p: function({**point, **p}), trees.pick(point, part))  # type: ignore[misc]  # torch types the form with an auxiliary output
    return cast("Pulled", (value, pullback, value))


PULLS: dict[Tangent, Pull] = {"exact": pushed, "difference": differenced}
