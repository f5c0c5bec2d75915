"""The tangent of a model along a displacement d of its weights: J d, exact or as a difference of two values.

    exact         J d by forward mode
    difference    J d = (f(point + h d) - f(point)) / h,   h^2 sum over matrices (|d_i| / |point_i|)^2 = 4 eps

The difference costs one more evaluation of f. Forward mode costs two more, since the tangent of W x is W x' + W' x. No
exact scheme takes less: three products, the value among them, are the rank of the multiplication of dual numbers. The
difference reaches their border rank, which is two. In float32 it is off by up to 1e-3 of J d, as much by the curvature
within h as by rounding.

Source:   Alder and Strassen 1981, doi:10.1016/0304-3975(81)90070-0 (the rank)
Source:   Knoll and Keyes 2004, doi:10.1016/j.jcp.2003.08.010, section 2.1 (J d by differences, and their step)
Differs:  the step is relative to each matrix, not to 1 + |point|, so that a large embedding that hardly moves does not
          lengthen it; if there are only vectors, the step is relative to them
"""

from collections.abc import Mapping
from typing import Literal, TypeAlias

import torch
from torch import Tensor

from gnflow.objective import Params

Tangent: TypeAlias = Literal["exact", "difference"]


def choose_step(displacement: Mapping[str, Tensor], point: Params) -> Tensor:
    """Choose h for a difference of values at `point`, which may have further parameters; 0-D."""
    size = _measure_relative(displacement, point)
    limits = torch.finfo(size.dtype)
    h: Tensor = 2 * limits.eps**0.5 / size.clamp(min=limits.tiny**0.5)
    return h


def _measure_relative(displacement: Mapping[str, Tensor], part: Params) -> Tensor:
    """Measure the displacement relative to each matrix, or to each vector if there are no matrices; 0-D."""
    names = [name for name in displacement if part[name].ndim > 1] or list(displacement)
    sizes = [part[name].square().sum() for name in names]
    shares = [
        displacement[name].square().sum() / torch.where(size > 0, size, 1.0)
        for name, size in zip(names, sizes, strict=True)
    ]
    return torch.stack(shares).sum().sqrt()
