"""The tangent of causal attention, computed in memory linear in time, as an operator.

    s = q k' / sqrt(d),  p = softmax(s + mask),  out = p v
    s. = (q. k' + q k.') / sqrt(d),  mu = rowsum(p o s.),  out. = (p o s.) v + p v. - mu out

A dot after a symbol marks its tangent. The rows of p are computed again, one tile of them at a time.

It is an operator because Dynamo drops the `jvp` of an `autograd.Function`, and a custom_op has one inside. The operator
has no derivatives of its own: it is called beside the primal, whose reverse pass stays that of the fused kernel.

Source:   Dao 2023, arXiv:2307.08691 (tiles); Lu & Song 2024, arXiv:2410.11081, appendix (the tangent in one pass)
Differs:  the primal and its logsumexp come from the fused kernel, not from the same pass; the attention is causal
"""

import torch
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula

TILE = 64
"""Number of queries whose rows of p are in memory at a time, on the CPU."""


def compute_in_tiles(
    query: Tensor, key: Tensor, value: Tensor, dquery: Tensor, dkey: Tensor, dvalue: Tensor, out: Tensor
) -> Tensor:
    """Compute the tangent of `out`, in its memory layout, tile by tile.

    Every argument is (rows, heads, time, size); the name of a tangent begins with d.
    """
    tangent, future = torch.empty_like(out), torch.ones(TILE, TILE, dtype=torch.bool, device=out.device).triu(1)
    k, v, dk, dv = (part.flatten(0, 1) for part in (key, value, dkey, dvalue))
    q, dq = (part.flatten(0, 1) * query.shape[-1] ** -0.5 for part in (query, dquery))
    for start in range(0, query.shape[-2], TILE):
        at, past = slice(start, start + TILE), slice(start + TILE)
        keys, dkeys = k[:, past].mT, dk[:, past].mT
        scores = q[:, at] @ keys
        rows = scores.shape[1]
        scores[..., start:].masked_fill_(future[:rows, :rows], float("-inf"))
        p = torch.softmax(scores, dim=-1)
        bent = torch.baddbmm(dq[:, at] @ keys, q[:, at], dkeys).mul_(p)
        moved = torch.baddbmm(p @ dv[:, past], bent, v[:, past]).view_as(out[..., at, :])
        mu = bent.sum(-1, keepdim=True).view(*out.shape[:2], rows, 1)
        tangent[..., at, :] = moved.addcmul_(mu, out[..., at, :], value=-1)
    return tangent


def _compute_on_cuda(
    query: Tensor, key: Tensor, value: Tensor, dquery: Tensor, dkey: Tensor, dvalue: Tensor, out: Tensor
) -> Tensor:
    if query.dtype == torch.float64:
        return compute_in_tiles(query, key, value, dquery, dkey, dvalue, out)
    from gnflow.models.attention_tangent_triton import (
        compute_in_one_pass,  # triton comes with torch's builds for CUDA alone
    )

    return compute_in_one_pass(query, key, value, dquery, dkey, dvalue, out)


_NAME = "gnflow::attention_tangent"
torch.library.define(
    _NAME, "(Tensor query, Tensor key, Tensor value, Tensor dquery, Tensor dkey, Tensor dvalue, Tensor out) -> Tensor"
)
torch.library.impl(_NAME, "cpu", compute_in_tiles)
torch.library.impl(_NAME, "cuda", _compute_on_cuda)


@torch.library.register_fake(_NAME)  # type: ignore[untyped-decorator]  # torch leaves it untyped
def _(query: Tensor, key: Tensor, value: Tensor, dquery: Tensor, dkey: Tensor, dvalue: Tensor, out: Tensor) -> Tensor:
    return torch.empty_like(out)


@register_flop_formula(torch.ops.gnflow.attention_tangent)
def _count_flops(query: torch.Size, *_: object, **__: object) -> int:
    """Count five products over all of time x time, as torch does for attention: p again, two for s., two for out."""
    rows, heads, time, size = query
    return 5 * 2 * rows * heads * time * time * size


def compute_attention_tangent(
    query: Tensor, key: Tensor, value: Tensor, dquery: Tensor, dkey: Tensor, dvalue: Tensor, out: Tensor
) -> Tensor:
    """Compute the tangent of `out` on any device. Taking a derivative of it raises RuntimeError."""
    tangent: Tensor = torch.ops.gnflow.attention_tangent(query, key, value, dquery, dkey, dvalue, out)
    # heaviside returns the same bits, and torch refuses to differentiate it. Autograd would take the bare operator for
    # a constant, with nothing but a warning.
    return torch.heaviside(torch.zeros_like(tangent), tangent)
