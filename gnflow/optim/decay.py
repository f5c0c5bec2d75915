"""Decoupled weight decay, everywhere or only where it points the way of the update.

    W <- W - lr (U + decay W)                 plain
    W <- W - lr (U + rate W [U W >= 0])       cautious, entry by entry

Source:   cautious: arXiv:2510.12402
Code:     github.com/microsoft/dion @ 0a059a4
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from gnflow.spec.rules import Cautious

if TYPE_CHECKING:
    from torch import Tensor


def decay_rates(decay: float | Cautious, direction: Tensor, weight: Tensor) -> float | Tensor:
    """The rate at which each entry of `weight` decays while `direction` is subtracted, or the one rate of all."""
    if not isinstance(decay, Cautious):
        return decay
    # Not their product, which may be too small for its sign.
    return decay.rate * (direction.sign() * weight.sign() >= 0).to(weight.dtype)
