"""Decoupled weight decay, of all entries or only of those that the update shrinks as well.

    W <- W - lr (U + decay W)                 plain
    W <- W - lr (U + rate W [U W >= 0])       cautious, entry by entry

Source:   cautious: arXiv:2510.12402
Code:     github.com/microsoft/dion @ 0a059a4
Differs:  nothing
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from gnflow.spec.rules import Cautious

if TYPE_CHECKING:
    from torch import Tensor


def add_decay(decay: float | Cautious, direction: Tensor, weight: Tensor) -> Tensor:
    """Return U + decay W, where U is the direction that is subtracted."""
    if isinstance(decay, Cautious):
        return direction + find_decay(decay, direction, weight) * weight
    # One operation in place of two. torch 2.13 compiles `add` without its `alpha` if the direction is a product.
    return direction.sub(weight, alpha=-decay)


def find_decay(decay: float | Cautious, direction: Tensor, weight: Tensor) -> float | Tensor:
    """Return the rate at which each entry of `weight` decays while `direction` is subtracted.

    It is one number if all entries decay at the same rate.
    """
    if not isinstance(decay, Cautious):
        return decay
    # The product of the two may be too small to have a sign.
    return decay.rate * (direction.sign() * weight.sign() >= 0).to(weight.dtype)
