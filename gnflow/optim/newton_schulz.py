"""The orthogonal polar factor U V' of X = U S V', by products of matrices alone.

    X <- X / |X|
    X <- p_k(X) = (a I + b R + c R R) X,   R = X X'                        for each polynomial (a, b, c) of the set

Where one side is more than twice the other, the iteration runs on the small Gram matrix R instead. All Z below are
polynomials in R and commute with it. X is multiplied once for each segment of two steps (five steps are two and three):

    Z = a I + b R + c R R,   Q <- Z Q,   R <- Z R Z;   at the end of the segment X <- Q X

The first steps raise singular values tenfold and more, and with them the rounding error of R, so each segment begins
with R = X X' anew. Without that the iteration explodes in bfloat16, and so do three steps in one segment if more
follow.

Source:   Jordan et al. 2024, kellerjordan.github.io/posts/muon; Amsel et al. 2025, arXiv:2505.16932; CANS: Grishina et
          al. 2025, arXiv:2506.10935; Gram form: dao-lab.ai/blog/2026/gram-newton-schulz
Code:     github.com/KellerJordan/Muon muon.py @ 857d1ad; github.com/KellerJordan/modded-nanogpt train_gpt.py (Polar
          Express), train_gpt_medium.py (You Jiacheng); github.com/NVIDIA-NeMo/Emerging-Optimizers muon_utils.py @
          fd77292 (CANS, DeepSeek-V4); github.com/Dao-AILab/gram-newton-schulz @ f08f25e
Differs:  float32 on a CPU and bfloat16 on a GPU, in the Gram form too, unless a type is asked for; a tall X takes
          R = X' X and X Q, and is never transposed; of a set that is too short the last polynomial repeats; CANS
          has a margin against rounding errors
"""

from collections import defaultdict
from collections.abc import Sequence
from typing import Literal, NamedTuple, TypeAlias

import torch
from torch import Tensor

from gnflow.objective import Params
from gnflow.spec.rules import Coefficients as Coefficients
from gnflow.spec.rules import IterationType as IterationType

Polynomial: TypeAlias = tuple[float, float, float]
SMALLEST_NORM = 1e-7
JORDAN = (3.4445, -4.7750, 2.0315)
# p(1) = 1 and p'(1) = 0, so singular values near 1 converge to it.
CONVERGENT = (2.0, -1.5, 0.5)


class Iteration(NamedTuple):
    """Polynomials, the last of which repeats, and the margin by which |X| must stay below 1."""

    polynomials: tuple[Polynomial, ...]
    safety: float = 1.0


def _leave_margin(polynomial: Polynomial, margin: float) -> Polynomial:
    """Return the coefficients of p(x / margin)."""
    a, b, c = polynomial
    return a / margin, b / margin**3, c / margin**5


ITERATIONS: dict[Coefficients, Iteration] = {
    # Singular values end in [0.68, 1.14].
    "jordan": Iteration((JORDAN,)),
    # Five optimal polynomials for singular values down to 1e-3; they end in [0.85, 1.15].
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
    # Singular values down to 3e-3 end in [0.97, 1.15].
    "you_jiacheng": Iteration(
        (
            (4.0848, -6.8946, 2.9270),
            (3.9505, -6.3029, 2.6377),
            (3.7418, -5.5913, 2.3037),
            (2.8769, -3.1427, 1.2046),
            (2.8366, -3.0525, 1.2012),
        )
    ),
    # As published they explode in bfloat16, so all but the last leave a margin of 3 % (those of Polar Express, 2 %).
    # Singular values down to 1e-3 end in [0.81, 1.12].
    "cans": Iteration(
        (
            *(
                _leave_margin(polynomial, 1.03)
                for polynomial in (
                    (8.4703, -25.1081, 18.6293),
                    (4.1828, -3.1087, 0.5806),
                    (3.9619, -2.9541, 0.5630),
                    (3.2866, -2.4647, 0.5074),
                )
            ),
            (2.2737, -1.6447, 0.4162),
        )
    ),
    # Made for ten steps, after which singular values down to 1e-3 are 1 to within 1e-3.
    "deepseek_v4": Iteration((JORDAN,) * 8 + (CONVERGENT,)),
    # After twelve steps singular values down to 1e-3 are 1.
    "convergent": Iteration((CONVERGENT,)),
}


def orthogonalise(
    matrices: Params, steps: int = 5, coefficients: Coefficients = "jordan", dtype: IterationType = "auto"
) -> Params:
    """Return the polar factor of each matrix (m, n) and of each in a stack (k, m, n), those of one shape in one batch.

    If a set has fewer than `steps` polynomials, its last one repeats; if it has more, the first are used. The products
    are computed in `dtype`: `auto` is bfloat16 on a GPU, and the type of the matrices elsewhere.
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
        batches = [_join([matrices[name].reshape(-1, *shape) for name in shapes[shape]]) for shape in pair]
        for shape, factors in zip(pair, iterate(batches, chosen, safety, dtype), strict=True):
            parts = torch.split(factors, [matrices[name].shape[:-2].numel() for name in shapes[shape]])
            result |= {name: u.reshape(matrices[name].shape) for name, u in zip(shapes[shape], parts, strict=True)}
    return {name: result[name] for name in matrices}


def iterate(
    batches: Sequence[Tensor], polynomials: Sequence[Polynomial], safety: float = 1.0, dtype: IterationType = "auto"
) -> list[Tensor]:
    """Return the polar factors of batches (k, m, n), each of one shape or its transpose."""
    *_, m, n = batches[0].shape
    segments = _divide(polynomials) if max(m, n) > 2 * min(m, n) else [[each] for each in polynomials]
    xs = [_normalise(x, safety, dtype) for x in batches]
    rounded = xs[0].dtype == torch.bfloat16
    for segment in segments:
        gram = _join([x @ x.mT if _is_wide(x) else x.mT @ x for x in xs])
        if rounded and len(segment) == 1:
            ((a, b, c),) = segment
            factors, beta = torch.baddbmm(gram, gram, gram, beta=b, alpha=c), a
        else:
            factors, beta = multiply_out_fused(gram, segment) if rounded else multiply_out(gram, segment), 0.0
        parts = torch.split(factors, [len(x) for x in xs])
        xs = [_multiply(q, x, beta) for x, q in zip(xs, parts, strict=True)]
    return [x.to(batch.dtype) for x, batch in zip(xs, batches, strict=True)]


def multiply_out(gram: Tensor, polynomials: Sequence[Polynomial]) -> Tensor:
    """Return Q with Q X = p_k( ... p_1(X)) for X X' = `gram`."""
    identity = torch.eye(gram.shape[-1], dtype=gram.dtype, device=gram.device)
    product: Tensor | None = None
    for i, (a, b, c) in enumerate(polynomials):
        z = a * identity + b * gram + c * (gram @ gram)
        product = z if product is None else z @ product
        if i < len(polynomials) - 1:
            gram = z @ gram @ z
    return identity.expand_as(gram) if product is None else product


def multiply_out_fused(gram: Tensor, polynomials: Sequence[Polynomial]) -> Tensor:
    """Return the same Q for a batch, with sums inside the products, which round once: it takes half the rounding."""
    product: Tensor | None = None
    for i, (a, b, c) in enumerate(polynomials):
        rest = torch.baddbmm(gram, gram, gram, beta=b, alpha=c)  # Z - a I
        if product is None:
            product = rest.clone()
            product.diagonal(dim1=-2, dim2=-1).add_(a)
        else:
            product = torch.baddbmm(product, rest, product, beta=a)
        if i < len(polynomials) - 1:
            turned = torch.baddbmm(gram, rest, gram, beta=a)
            gram = torch.baddbmm(turned, turned, rest, beta=a)
    assert product is not None
    return product


def _multiply(factor: Tensor, x: Tensor, beta: float) -> Tensor:
    """Return Q X + beta X for a wide X, and X Q + beta X for a tall one."""
    left, right = (factor, x) if _is_wide(x) else (x, factor)
    return left @ right if beta == 0 else torch.baddbmm(x, left, right, beta=beta)


def _divide(polynomials: Sequence[Polynomial]) -> list[Sequence[Polynomial]]:
    """Divide the polynomials into segments of two, and up to five of them into the first two and all others."""
    if 2 < len(polynomials) <= 5:
        return [polynomials[:2], polynomials[2:]]
    return [polynomials[at : at + 2] for at in range(0, len(polynomials), 2)]


def _normalise(x: Tensor, safety: float, dtype: IterationType) -> Tensor:
    chosen = (torch.bfloat16 if x.is_cuda else x.dtype) if dtype == "auto" else TYPES[dtype]
    if chosen == torch.bfloat16:
        norm: Tensor = torch.linalg.vector_norm(x, dim=(-2, -1), keepdim=True)
        return x.to(chosen) / (safety * norm).clamp(min=SMALLEST_NORM).to(chosen)
    norm = x.square().sum((-2, -1), keepdim=True).sqrt()
    return (x / (safety * norm).clamp(min=SMALLEST_NORM)).to(chosen)


TYPES: dict[Literal["float32", "bfloat16"], torch.dtype] = {"float32": torch.float32, "bfloat16": torch.bfloat16}


def _is_wide(x: Tensor) -> bool:
    return x.shape[-2] <= x.shape[-1]


def _join(batches: list[Tensor]) -> Tensor:
    return batches[0] if len(batches) == 1 else torch.cat(batches)
