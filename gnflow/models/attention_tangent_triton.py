"""The tangent of causal attention on a GPU: one pass over the keys for a tile of queries, by an online softmax.

The mathematics and the names are those of `models.attention_tangent`. Sums are taken over exp(s - top) in place of p;
when a later key raises the top of a row, the sums so far shrink accordingly.
"""

from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor


class Launch(NamedTuple):
    """The queries and keys of a tile, the warps that work on it, and the pipeline stages over tiles of keys."""

    queries: int
    keys: int
    warps: int
    stages: int


def choose_launch(size: int, exact: bool) -> Launch:
    """Choose sizes that fit the shared memory and the registers of an A100 and an H100. `size` is a power of two.

    `exact` products are in float32 without tensor cores, and their operands are in registers.
    """
    if size > 128:
        return Launch(16, 16, 8, 1)
    if exact:
        return Launch(32, 32, 8, 2) if size <= 64 else Launch(16, 16, 8, 2)
    return Launch(64, 32, 4, 2) if size <= 64 else Launch(32, 32, 8, 2)


@triton.jit
def compute_tile(
    query: tl.tensor,
    key: tl.tensor,
    value: tl.tensor,
    dquery: tl.tensor,
    dkey: tl.tensor,
    dvalue: tl.tensor,
    out: tl.tensor,
    tangent: tl.tensor,
    time: int,
    size: int,
    scale: float,
    QUERIES: tl.constexpr,
    KEYS: tl.constexpr,
    SIZE: tl.constexpr,
    PRECISION: tl.constexpr,
) -> None:
    """Compute one tile of queries of one row and head. All tensors are contiguous (rows and heads, time, size)."""
    start = tl.program_id(1) * QUERIES
    at, feature = start + tl.arange(0, QUERIES), tl.arange(0, SIZE)
    first = tl.program_id(0).to(tl.int64) * time * size
    own = first + at[:, None] * size + feature[None, :]
    inside = (at[:, None] < time) & (feature[None, :] < size)
    q, dq = tl.load(query + own, inside, 0.0), tl.load(dquery + own, inside, 0.0)
    top = tl.full([QUERIES], float("-inf"), tl.float32)
    total, mu = tl.zeros([QUERIES], tl.float32), tl.zeros([QUERIES], tl.float32)
    moved = tl.zeros([QUERIES, SIZE], tl.float32)
    for past in range(0, tl.minimum(start + QUERIES, time), KEYS):
        seen = past + tl.arange(0, KEYS)
        there = first + seen[:, None] * size + feature[None, :]
        known = (seen[:, None] < time) & (feature[None, :] < size)
        k, dk = tl.load(key + there, known, 0.0), tl.load(dkey + there, known, 0.0)
        scores = tl.dot(q, tl.trans(k), input_precision=PRECISION) * scale
        bent = tl.dot(dq, tl.trans(k), input_precision=PRECISION)
        bent = tl.dot(q, tl.trans(dk), bent, input_precision=PRECISION) * scale
        scores = tl.where(at[:, None] >= seen[None, :], scores, float("-inf"))
        higher = tl.maximum(top, tl.max(scores, 1))
        shrink = tl.exp(top - higher)
        p = tl.exp(scores - higher[:, None])
        bent = p * bent
        total, mu = total * shrink + tl.sum(p, 1), mu * shrink + tl.sum(bent, 1)
        v, dv = tl.load(value + there, known, 0.0), tl.load(dvalue + there, known, 0.0)
        moved = tl.dot(bent.to(v.dtype), v, moved * shrink[:, None], input_precision=PRECISION)
        moved = tl.dot(p.to(dv.dtype), dv, moved, input_precision=PRECISION)
        top = higher
    moved = (moved - mu[:, None] * tl.load(out + own, inside, 0.0).to(tl.float32)) / total[:, None]
    tl.store(tangent + own, moved.to(tangent.dtype.element_ty), inside)


def compute_in_one_pass(
    query: Tensor, key: Tensor, value: Tensor, dquery: Tensor, dkey: Tensor, dvalue: Tensor, out: Tensor
) -> Tensor:
    """Do the same as `attention_tangent.compute_in_tiles` in float32 or bfloat16, with sums in float32."""
    rows, heads, time, size = query.shape
    exact = query.dtype == torch.float32 and torch.get_float32_matmul_precision() == "highest"
    padded = max(triton.next_power_of_2(size), 16)  # the least that tl.dot takes
    tile = choose_launch(padded, exact)
    inputs = [part.contiguous() for part in (query, key, value, dquery, dkey, dvalue, out)]
    tangent = torch.empty_like(inputs[-1])
    with torch.cuda.device_of(query):  # type: ignore[no-untyped-call]  # torch leaves it untyped
        compute_tile[rows * heads, triton.cdiv(time, tile.queries)](
            *inputs, tangent, time, size, size**-0.5,
            QUERIES=tile.queries, KEYS=tile.keys, SIZE=padded, PRECISION="ieee" if exact else "tf32",
            num_warps=tile.warps, num_stages=tile.stages,
        )  # fmt: skip
    return torch.empty_like(out).copy_(tangent)
