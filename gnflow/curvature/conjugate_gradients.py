"""Conjugate gradients on A x = b, one iteration at a time, on vectors that hold all parameters.

    a = <r, z> / <p, A p>     x <- x + a p     r <- r - a A p     z = P^-1 r     p <- z + <r, z>_new / <r, z> p

P is a preconditioner. x starts at 0. Once |r| <= tolerance |b| or <p, A p> <= 0, further iterations leave x unchanged,
so that no iteration has to wait for a decision of the host. If the curvature is negative along the very first
direction, that of steepest descent, x takes one step along it and then stays. The length of that step assumes the
curvature |p| |A p|. This is at least the curvature of A with the signs of its eigenvalues made positive, so the step
is no longer than one that used it.

Source:   Hestenes & Stiefel 1952; Dembo & Steihaug 1983, "Truncated-Newton algorithms", and Nocedal & Wright 2006,
          algorithm 7.1 (negative curvature); Martens 2010, "Deep learning via Hessian-free optimization", section 4
          (truncation)
Differs:  truncation by the residual, not by the progress of the quadratic; the length of a first step along negative
          curvature, which algorithm 7.1 leaves to its line search
"""

from collections.abc import Callable
from typing import NamedTuple, TypeAlias

import torch
from torch import Tensor

from gnflow import trees
from gnflow.curvature.lanczos import Operator
from gnflow.objective import Params, Scalar

Inverse: TypeAlias = Callable[[Tensor], Tensor]
"""r -> P^-1 r"""


class Iterate(NamedTuple):
    """The state of the iteration. The last four fields are 0-D."""

    solution: Tensor
    residual: Tensor
    direction: Tensor
    slope: Tensor
    """<r, z>"""
    size: Tensor
    """|b|"""
    going: Tensor
    iterations: Tensor


def begin(b: Tensor, inverse: Inverse) -> Iterate:
    """Return the iterate at x = 0."""
    direction = inverse(b)
    size = torch.linalg.vector_norm(b)
    return Iterate(
        torch.zeros_like(b), b.clone(), direction, b @ direction, size, size > 0, torch.zeros_like(size)
    )  # fmt: skip


def advance(at: Iterate, image: Tensor, inverse: Inverse, tolerance: float) -> Iterate:
    """Do one iteration. `image` is A times the direction."""
    bend = at.direction @ image
    steepest = torch.linalg.vector_norm(at.direction) * torch.linalg.vector_norm(image)
    going = at.going & ((bend > 0) | (bend < 0) & (at.iterations == 0)) & steepest.isfinite()
    length = at.slope / torch.where(bend > 0, bend, steepest)
    residual = torch.where(going, at.residual - length * image, at.residual)
    conjugate = inverse(residual)
    slope = residual @ conjugate
    return Iterate(
        torch.where(going, at.solution + length * at.direction, at.solution),
        residual,
        torch.where(going, conjugate + slope / at.slope * at.direction, at.direction),
        torch.where(going, slope, at.slope),
        at.size,
        going & (bend > 0) & (torch.linalg.vector_norm(residual) > tolerance * at.size),
        at.iterations + going,
    )


def solve(
    operator: Operator,
    b: Params,
    damping: float,
    iterations: int,
    tolerance: float = 0.0,
    preconditioner: Operator | None = None,
) -> tuple[Params, Scalar]:
    """Return (x, |r| / |b|) for (A + damping) x = b. Each iteration takes one product.

    With a `tolerance` the host looks after each iteration whether the residual is at most that part of |b|. The
    `preconditioner` is r -> P^-1 r, P close to A + damping.
    """

    def inverse(residual: Tensor) -> Tensor:
        if preconditioner is None:
            return residual
        return trees.flatten(trees.pick(preconditioner(trees.unflatten(residual, b)), b))

    at = begin(trees.flatten(b), inverse)
    for _ in range(iterations):
        image = operator(trees.unflatten(at.direction, b))
        at = advance(at, trees.flatten(trees.pick(image, b)) + damping * at.direction, inverse, tolerance)
        if tolerance and not bool(at.going):
            break
    return trees.unflatten(at.solution, b), torch.linalg.vector_norm(at.residual) / at.size
