"""LayerNorm without scale and bias, (x - mean) / sqrt(variance + epsilon), with a tangent of the type of its value."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.nn import functional


def standardize(x: Tensor, shape: Sequence[int], epsilon: float) -> Tensor:
    """Standardize x over its last axes, which have this shape."""
    # Except on a CPU, torch 2.13 has the mean of bfloat16 in float32, and then a tangent in float32 too.
    if x.dtype == torch.bfloat16 and forward_ad.unpack_dual(x).tangent is not None:  # type: ignore[no-untyped-call]  # torch leaves it untyped
        return functional.layer_norm(x.float(), list(shape), eps=epsilon).to(x.dtype)
    return functional.layer_norm(x, list(shape), eps=epsilon)
