"""A function and its Jacobian J at a point, in both directions: J d pushed forward, and a cotangent pulled back.

    push_exactly          J d by forward mode, exact
    push_by_difference    J d = (f(point + h d) - f(point)) / h,   h^2 sum over matrices (|d_i| / |point_i|)^2 = 4 eps
    push_nothing          no d

The difference costs one more evaluation of f. Forward mode costs two more, since the tangent of W x is W x' + W' x. No
exact scheme takes less: three products, the value among them, are the rank of the multiplication of dual numbers. The
difference reaches their border rank, which is two. In float32 it is off by up to 1e-3 of J d, as much by the curvature
within h as by rounding.

Source:   Alder and Strassen 1981, doi:10.1016/0304-3975(81)90070-0 (the rank)
Source:   Knoll and Keyes 2004, doi:10.1016/j.jcp.2003.08.010, section 2.1 (J d by differences, and their step)
Differs:  the step is relative to each matrix, not to 1 + |point|, so that a large embedding that hardly moves does not
          lengthen it; if there are only vectors, the step is relative to them
"""

from collections.abc import Callable, Mapping
from typing import Literal, TypeAlias, cast

import torch
from torch import Tensor

from gnflow import trees
from gnflow.curvature.barrier import after
from gnflow.objective import Params

Pulled: TypeAlias = tuple[Tensor, Callable[[Tensor], tuple[Params]], Tensor]
Pull: TypeAlias = Callable[[Callable[[Params], Tensor], Params, Params], Pulled]
"""(function, point, displacement of a part of it) -> (value, cotangent -> (gradient of the part,), tangent)."""
Tangent: TypeAlias = Literal["exact", "difference"]


def push_exactly(function: Callable[[Params], Tensor], point: Params, displacement: Params) -> Pulled:
    """Takes the tangent by forward mode. The reverse pass does not go through the tangent."""

    def forward(part: Params) -> tuple[Tensor, Tensor]:
        pushforward = torch.func.jvp(lambda p: function({**point, **p}), (part,), (displacement,))
        return cast("tuple[Tensor, Tensor]", pushforward)

    # torch types neither transform by its arguments.
    return cast("Pulled", torch.func.vjp(forward, trees.pick(point, displacement), has_aux=True))


def push_by_difference(function: Callable[[Params], Tensor], point: Params, displacement: Params) -> Pulled:
    """Takes the tangent by a difference of two values. The second one keeps no activations."""
    value, pullback, _ = push_nothing(function, point, displacement)
    part = trees.pick(point, displacement)
    h = after(choose_step(displacement, part), [])
    beside = function({**point, **trees.move_along(part, displacement, h)})
    return value, pullback, (beside - value) / h


def choose_step(displacement: Mapping[str, Tensor], point: Params) -> Tensor:
    """Chooses h for a difference of values at `point`, which may have further parameters; 0-D."""
    size = _measure_relative(displacement, point)
    limits = torch.finfo(size.dtype)
    return 2 * limits.eps**0.5 / size.clamp(min=limits.tiny**0.5)


def _measure_relative(displacement: Mapping[str, Tensor], part: Params) -> Tensor:
    """Measures the displacement relative to each matrix, or to each vector if there are no matrices; 0-D."""
    names = [name for name in displacement if part[name].ndim > 1] or list(displacement)
    sizes = [part[name].square().sum() for name in names]
    shares = [
        displacement[name].square().sum() / torch.where(size > 0, size, 1.0)
        for name, size in zip(names, sizes, strict=True)
    ]
    return torch.stack(shares).sum().sqrt()


def push_nothing(function: Callable[[Params], Tensor], point: Params, part: Params) -> Pulled:
    """Takes no tangent and returns the value in its place. Only the names in `part` matter, not its numbers."""
    value, pullback = torch.func.vjp(lambda p: function({**point, **p}), trees.pick(point, part))  # type: ignore[misc]  # torch types the form with an auxiliary output
    return cast("Pulled", (value, pullback, value))


PULLS: dict[Tangent, Pull] = {"exact": push_exactly, "difference": push_by_difference}
