"""The orthogonal polar factor U V' of X = U S V', by products of matrices alone.

    X <- X / |X|
    X <- p_k(X) = (a I + b R + c R R) X,   R = X X'                        for each polynomial (a, b, c) of the set

Where one side is more than twice the other, the iteration runs on the small Gram matrix R instead. All Z below are
polynomials in R and commute with it; X is met once for each segment of two steps; five are two and three:

    Z = a I + b R + c R R,   Q <- Z Q,   R <- Z R Z;   at the end of the segment X <- Q X

The first steps raise singular values tenfold and more, and with them the rounding error of R: each segment begins
with R = X X' anew. Without that the iteration explodes in bfloat16;
so do three steps in one segment when more follow.

Source:   Jordan et al. 2024, kellerjordan.github.io/posts/muon; Amsel et al. 2025, arXiv:2505.16932; Gram form:
          dao-lab.ai/blog/2026/gram-newton-schulz
Code:     github.com/KellerJordan/Muon muon.py @ 857d1ad; github.com/KellerJordan/modded-nanogpt train_gpt.py (Polar
          Express); github.com/Dao-AILab/gram-newton-schulz @ f08f25e
Differs:  float32 on CPU, bfloat16 on GPU in the Gram form too, unless one is asked for; a tall X takes R = X' X
          and X Q, and is never transposed
"""

from collections import defaultdict
from collections.abc import Sequence
from typing import Literal, NamedTuple, TypeAlias

import torch
from torch import Tensor

from gnflow.objective import Params

Coefficients: TypeAlias = Literal["jordan", "polar_express", "convergent"]
Precision: TypeAlias = Literal["auto", "float32", "bfloat16"]
Polynomial: TypeAlias = tuple[float, float, float]
SMALLEST_NORM = 1e-7


class Iteration(NamedTuple):
    """Polynomials, the last of which repeats, and the margin by which |X| must stay below 1."""

    polynomials: tuple[Polynomial, ...]
    safety: float = 1.0


ITERATIONS: dict[Coefficients, Iteration] = {
    # github.com/KellerJordan/Muon/blob/857d1ad/muon.py#L15; singular values end in [0.68, 1.14]
    "jordan": Iteration(((3.4445, -4.7750, 2.0315),)),
    # Five optimal polynomials for singular values down to 1e-3; they end in [0.85, 1.15]
    "polar_express": Iteration(
        (
            (8.156554524902461, -22.48329292557795, 15.878769915207462),
            (4.042929935166739, -2.808917465908714, 0.5000178451051316),
            (3.8916678022926607, -2.772484153217685, 0.5060648178503393),
            (3.285753657755655, -2.3681294933425376, 0.46449024233003106),
            (2.3465413258596377, -1.7097828382687081, 0.42323551169305323),
        ),
        safety=1.02,
    ),
    # p(1) = 1 and p'(1) = 0: singular values end at 1, after twelve steps those that began at 1e-3 too
    "convergent": Iteration(((2.0, -1.5, 0.5),)),
}


def orthogonalised(
    matrices: Params, steps: int = 5, coefficients: Coefficients = "jordan", dtype: Precision = "auto"
) -> Params:
    """The polar factor of each matrix (m, n) and of each in a stack (k, m, n), those of one shape in one batch.

    Of a set shorter than `steps` the last polynomial repeats; of a longer one the first are used. `dtype` is that of
    the products; `auto` is bfloat16 on a GPU and the type of the matrices elsewhere.
    """
    polynomials, safety = ITERATIONS[coefficients]
    chosen = (polynomials + polynomials[-1:] * (steps - len(polynomials)))[:steps]
    shapes: dict[tuple[int, ...], list[str]] = defaultdict(list)
    for name, x in matrices.items():
        if x.numel():
            shapes[tuple(x.shape[-2:])].append(name)
    # A shape and its transpose share the products of their Gram matrices.
    pairs: dict[tuple[int, ...], list[tuple[int, ...]]] = defaultdict(list)
    for shape in shapes:
        pairs[tuple(sorted(shape))].append(shape)
    result: Params = {name: x for name, x in matrices.items() if not x.numel()}
    for pair in pairs.values():
        batches = [_joined([matrices[name].reshape(-1, *shape) for name in shapes[shape]]) for shape in pair]
        for shape, factors in zip(pair, newton_schulz(batches, chosen, safety, dtype), strict=True):
            parts = torch.split(factors, [matrices[name].shape[:-2].numel() for name in shapes[shape]])
            result |= {name: u.reshape(matrices[name].shape) for name, u in zip(shapes[shape], parts, strict=True)}
    return {name: result[name] for name in matrices}


def newton_schulz(
    batches: Sequence[Tensor], polynomials: Sequence[Polynomial], safety: float = 1.0, dtype: Precision = "auto"
) -> list[Tensor]:
    """Polar factors of batches (k, m, n), each of one shape or its transpose."""
    *_, m, n = batches[0].shape
    segments = _segments(polynomials) if max(m, n) > 2 * min(m, n) else [[each] for each in polynomials]
    xs = [_normalised(x, safety, dtype) for x in batches]
    for segment in segments:
        gram = _joined([x @ x.mT if _wide(x) else x.mT @ x for x in xs])
        factors = torch.split(accumulated(gram, segment), [len(x) for x in xs])
        xs = [q @ x if _wide(x) else x @ q for x, q in zip(xs, factors, strict=True)]
    return [x.to(batch.dtype) for x, batch in zip(xs, batches, strict=True)]


def _segments(polynomials: Sequence[Polynomial]) -> list[Sequence[Polynomial]]:
    if 2 < len(polynomials) <= 5:
        return [polynomials[:2], polynomials[2:]]
    return [polynomials[at : at + 2] for at in range(0, len(polynomials), 2)]


def accumulated(gram: Tensor, polynomials: Sequence[Polynomial]) -> Tensor:
    """Q with Q X = p_k( ... p_1(X)) for X X' = `gram`."""
    identity = torch.eye(gram.shape[-1], dtype=gram.dtype, device=gram.device)
    product: Tensor | None = None
    for i, (a, b, c) in enumerate(polynomials):
        z = a * identity + b * gram + c * (gram @ gram)
        product = z if product is None else z @ product
        if i < len(polynomials) - 1:
            gram = z @ gram @ z
    return identity.expand_as(gram) if product is None else product


def _normalised(x: Tensor, safety: float, dtype: Precision) -> Tensor:
    norm = x.square().sum((-2, -1), keepdim=True).sqrt()
    x = x / (safety * norm).clamp(min=SMALLEST_NORM)
    if dtype == "auto":
        return x.bfloat16() if x.is_cuda else x
    return x.to(getattr(torch, dtype))


def _wide(x: Tensor) -> bool:
    return x.shape[-2] <= x.shape[-1]


def _joined(batches: list[Tensor]) -> Tensor:
    return batches[0] if len(batches) == 1 else torch.cat(batches)
