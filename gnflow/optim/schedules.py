"""Factors on a learning rate, each a function of the 0-D count of updates made so far, computed inside the region.

wsd     (u + 1) / w                                    for u < w, w updates of warm-up
        or f + (1 - f) u / w                           with `warmup_from` f
        1                                              for u < N - d, N updates in all and d of decay
        final + (1 - final) s(t), t = (N - u) / d      after that, and `final` from N on
linear  the same with d = N - w and s(t) = t

The inner schedules of Gauss-Newton are functions of the same count: outer step = count // inner_steps.

Code:     github.com/natalieabreu/full-gauss-newton `lr_sched` @ 0c14e7e
Differs:  `inner_cosine` is not shifted by one outer step, as the reference's `cosine_with_global_schedule` is;
          a warm-up starts at 1/warmup unless `warmup_from` is 0.1, as it is in the reference
"""

from collections.abc import Callable
from typing import Literal, TypeAlias

import torch
from torch import Tensor

from gnflow.transform import Schedule as Schedule

Shape: TypeAlias = Literal["linear", "cosine", "sqrt", "power"]
SHAPES: dict[str, Callable[[Tensor, float], Tensor]] = {
    "linear": lambda t, p: t,
    "cosine": lambda t, p: (1 - torch.cos(torch.pi * t)) / 2,
    "sqrt": lambda t, p: 1 - (1 - t).sqrt(),
    "power": lambda t, p: t**p,
}
"""s(t, p): from 1 at t = 1 to 0 at t = 0."""


def _fall_along_cosine(progress: Tensor, final: float) -> Tensor:
    """Return 1 at progress 0, and `final` at 1 and after."""
    return final + (1 - final) * 0.5 * (1 + torch.cos(torch.pi * progress.clamp(0, 1)))


def constant(warmup: int = 0, warmup_from: float | None = None) -> Schedule:
    """Rise linearly from 1/warmup at the first update, or from `warmup_from`, to 1, then stay at 1."""
    if warmup_from is not None and warmup > 0:
        return lambda count: (warmup_from + (1 - warmup_from) * count.double() / warmup).clamp(max=1)
    return lambda count: ((count + 1) / max(warmup, 1)).double().clamp(max=1)


def cosine(updates: int, warmup: int = 0, final: float = 0.0, warmup_from: float | None = None) -> Schedule:
    """Warm up linearly, then follow half a cosine that ends at `final` after `updates`."""
    rising = constant(warmup, warmup_from)

    def find_factor(count: Tensor) -> Tensor:
        progress = (count - warmup).double() / max(updates - warmup, 1)
        return rising(count) * _fall_along_cosine(progress, final)

    return find_factor


def wsd(
    updates: int,
    warmup: int = 0,
    decay: int = 0,
    shape: Shape = "linear",
    power: float = 1.0,
    final: float = 0.0,
    warmup_from: float | None = None,
) -> Schedule:
    """Warm up linearly, keep the full rate, then fall towards `final` over the last `decay` of all `updates`.

    `power` is the exponent of the shape of that name. A decay that reaches into the warm-up begins after it.
    """
    length, fall = max(min(decay, updates - warmup), 1), SHAPES[shape]
    rising = constant(warmup, warmup_from) if warmup_from is not None else _rise_in_float64(warmup)

    def find_factor(count: Tensor) -> Tensor:
        left = ((updates - count).double() / length).clamp(0, 1)
        # In this form it is exactly 1 before the decay: until there the bits are those of a constant rate.
        return rising(count) * (1 - (1 - final) * (1 - fall(left, power)))

    return find_factor


def linear(updates: int, warmup: int = 0, final: float = 0.0, warmup_from: float | None = None) -> Schedule:
    """Warm up linearly, then follow a straight line towards `final` over all other updates."""
    return wsd(updates, warmup, updates, "linear", final=final, warmup_from=warmup_from)


def _rise_in_float64(warmup: int) -> Schedule:
    """Return the warm-up of `constant`, which rounds to float32; the bits of stored runs depend on either."""
    return lambda count: ((count + 1).double() / max(warmup, 1)).clamp(max=1)


def constant_with_inner_cosine(inner_steps: int, final: float = 0.0) -> Schedule:
    """Follow half a cosine inside each outer step, always from 1."""
    return lambda count: _fall_along_cosine((count % inner_steps).double() / inner_steps, final)


def inner_cosine(inner_steps: int, outer_steps: int, final: float = 0.0) -> Schedule:
    """Follow half a cosine inside each outer step, from a peak on half a cosine over the outer steps."""
    inner = constant_with_inner_cosine(inner_steps, final)

    def find_factor(count: Tensor) -> Tensor:
        outer = torch.div(count, inner_steps, rounding_mode="floor").double() / outer_steps
        return inner(count) * _fall_along_cosine(outer, final)

    return find_factor
