"""Factors on a learning rate, each a function of the 0-D count of updates made so far, computed inside the region.

The inner schedules of Gauss-Newton are functions of the same count: outer step = count // inner_steps.

Code:     github.com/natalieabreu/full-gauss-newton `lr_sched` @ 0c14e7e
Differs:  `inner_cosine` is not shifted by one outer step, as the reference's `cosine_with_global_schedule` is
"""

import torch
from torch import Tensor

from gnflow.transform import Schedule as Schedule


def _cosine(progress: Tensor, final: float) -> Tensor:
    """1 at progress 0, `final` at 1 and after."""
    return final + (1 - final) * 0.5 * (1 + torch.cos(torch.pi * progress.clamp(0, 1)))


def constant(warmup: int = 0) -> Schedule:
    """Linear from 1/warmup to 1, then 1."""
    return lambda count: ((count + 1) / max(warmup, 1)).double().clamp(max=1)


def cosine(updates: int, warmup: int = 0, final: float = 0.0) -> Schedule:
    """Linear warm-up, then half a cosine that ends at `final` after `updates`."""
    rising = constant(warmup)

    def factor(count: Tensor) -> Tensor:
        progress = (count - warmup).double() / max(updates - warmup, 1)
        return rising(count) * _cosine(progress, final)

    return factor


def constant_with_inner_cosine(inner_steps: int, final: float = 0.0) -> Schedule:
    """Half a cosine inside each outer step, always from 1."""
    return lambda count: _cosine((count % inner_steps).double() / inner_steps, final)


def inner_cosine(inner_steps: int, outer_steps: int, final: float = 0.0) -> Schedule:
    """Half a cosine inside each outer step, from a peak on half a cosine over the outer steps."""
    inner = constant_with_inner_cosine(inner_steps, final)

    def factor(count: Tensor) -> Tensor:
        outer = torch.div(count, inner_steps, rounding_mode="floor").double() / outer_steps
        return inner(count) * _cosine(outer, final)

    return factor
