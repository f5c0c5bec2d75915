"""Causal attention in two kernels with the same mathematics, and rotary positions.

    plain   softmax(q k' / sqrt(d) + mask) v, written out; it has every derivative
    flash   the fused kernel, which makes no time x time matrix. It has a gradient, and beside it a tangent
            (`models.attention_tangent`), but no second derivative: taking one raises NotImplementedError, or
            RuntimeError if it goes through the tangent

The plan chooses the kernel that the spec names, or else one that has the derivatives which the optimizer takes.
"""

from collections.abc import Callable
from typing import Literal, TypeAlias

import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.nn import functional

from gnflow.models.attention_tangent import compute_attention_tangent

Kernel: TypeAlias = Literal["plain", "flash"]
Attention: TypeAlias = Callable[[Tensor, Tensor, Tensor], Tensor]


def attend_plain(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Map query, key and value, each (rows, heads, time, size), to an output of the same shape."""
    time, size = query.shape[-2:]
    position = torch.arange(time, device=query.device)
    future = position > position.unsqueeze(-1)  # a compiler computes it again, where it would keep and read a `triu`
    scores = (query @ key.transpose(-2, -1)) * size**-0.5
    return torch.softmax(scores.masked_fill(future, float("-inf")), dim=-1) @ value


def attend_flash(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Do the same as `plain`. The output has a tangent if one of the inputs has."""
    duals = [forward_ad.unpack_dual(part) for part in (query, key, value)]  # type: ignore[no-untyped-call]  # torch leaves it untyped
    if all(dual.tangent is None for dual in duals):
        return functional.scaled_dot_product_attention(query, key, value, is_causal=True)
    query, key, value = (dual.primal for dual in duals)
    dquery, dkey, dvalue = (torch.zeros_like(d.primal) if d.tangent is None else d.tangent for d in duals)
    out = functional.scaled_dot_product_attention(query, key, value, is_causal=True)
    tangent = compute_attention_tangent(query, key, value, dquery, dkey, dvalue, out)
    return forward_ad.make_dual(out, tangent)  # type: ignore[no-untyped-call, no-any-return]  # torch leaves it untyped


KERNELS: dict[Kernel, Attention] = {"plain": attend_plain, "flash": attend_flash}


def rotate(x: Tensor, theta: float, fraction: float = 1.0) -> Tensor:
    """Apply rotary positions (arXiv:2104.09864) to (rows, heads, time, size): feature i pairs with i + size/2.

    Only the first `fraction` of the pairs is rotated, at least one pair; the others keep their features.
    """
    time, size = x.shape[-2:]
    pairs = max(round(fraction * size / 2), 1)
    frequency = theta ** (-torch.arange(0, 2 * pairs, 2, device=x.device, dtype=torch.float32) / (2 * pairs))
    if 2 * pairs < size:
        frequency = functional.pad(frequency, (0, size // 2 - pairs))
    angle = torch.outer(torch.arange(time, device=x.device, dtype=torch.float32), frequency)
    cosine, sine = angle.cos().to(x.dtype), angle.sin().to(x.dtype)
    first, second = x.chunk(2, dim=-1)
    return torch.cat((first * cosine - second * sine, second * cosine + first * sine), dim=-1)
