"""The tangent of causal attention in memory linear in time, as an operator.

    s = q k' / sqrt(d),  p = softmax(s + mask),  out = p v
    s. = (q. k' + q k.') / sqrt(d),  mu = rowsum(p o s.),  out. = (p o s.) v + p v. - mu out

A dot marks the tangent of what it stands after. The rows of p are made again, a tile of them at a time.

It is an operator and no `autograd.Function`, whose `jvp` Dynamo drops; and one that knows no derivatives: it is called
beside the primal, whose reverse pass stays that of the fused kernel. A custom_op has an `autograd.Function` inside.

Source:   Dao 2023, arXiv:2307.08691 (tiles); Lu & Song 2024, arXiv:2410.11081, appendix (the tangent in one pass)
Differs:  the primal and its logsumexp are the fused kernel's own, not made in the same pass; causal
"""

import torch
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula

TILE = 64
"""Queries whose rows of p are there at a time, on the CPU."""


def compute_in_tiles(
    query: Tensor, key: Tensor, value: Tensor, dquery: Tensor, dkey: Tensor, dvalue: Tensor, out: Tensor
) -> Tensor:
    """(rows, heads, time, size) each, a tangent's name begins with d -> the tangent of `out`, laid out as it is."""
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
    """Five products: p once more, two of s., two of out.; of all of time x time, as torch counts attention."""
    rows, heads, time, size = query
    return 5 * 2 * rows * heads * time * time * size


def attention_tangent(
    query: Tensor, key: Tensor, value: Tensor, dquery: Tensor, dkey: Tensor, dvalue: Tensor, out: Tensor
) -> Tensor:
    """As `tiled`, on whatever device; to take a derivative of it raises RuntimeError."""
    tangent: Tensor = torch.ops.gnflow.attention_tangent(query, key, value, dquery, dkey, dvalue, out)
    # The same bits. Without a formula of its own the operator would be a constant to autograd, after a mere warning,
    # and torch refuses to differentiate heaviside.
    return torch.heaviside(torch.zeros_like(tangent), tangent)
