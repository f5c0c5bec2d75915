"""Conjugate gradients on A x = b, one iteration at a time, on vectors that hold all parameters.

    a = <r, z> / <p, A p>     x <- x + a p     r <- r - a A p     z = r / m     p <- z + <r, z>_new / <r, z> p

m is the diagonal of a preconditioner. x begins at 0. Once |r| <= tolerance |b|, or <p, A p> <= 0, x stays: further
iterations change nothing, so none has to wait for the host to decide.

Source:   Hestenes & Stiefel 1952; Martens 2010, "Deep learning via Hessian-free optimization", section 4 (truncation)
Differs:  truncation by the residual, not by the progress of the quadratic
"""

from typing import NamedTuple

import torch
from torch import Tensor

from gnflow import trees
from gnflow.curvature.lanczos import Operator
from gnflow.objective import Params, Scalar


class Iterate(NamedTuple):
    """Where the iteration stands; the last four are 0-D."""

    solution: Tensor
    residual: Tensor
    direction: Tensor
    slope: Tensor
    """<r, z>"""
    size: Tensor
    """|b|"""
    going: Tensor
    iterations: Tensor


def begin(b: Tensor, preconditioner: Tensor) -> Iterate:
    """x = 0. No two tensors share storage: `advance` would be compiled a second time."""
    direction = b / preconditioner
    size = torch.linalg.vector_norm(b)
    return Iterate(
        torch.zeros_like(b), b.clone(), direction, b @ direction, size, size > 0, torch.zeros_like(size)
    )  # fmt: skip


def advance(at: Iterate, image: Tensor, preconditioner: Tensor, tolerance: float) -> Iterate:
    """One iteration; `image` is A times the direction."""
    bend = at.direction @ image
    going = at.going & (bend > 0) & bend.isfinite()
    length = at.slope / bend
    residual = torch.where(going, at.residual - length * image, at.residual)
    conjugate = residual / preconditioner
    slope = residual @ conjugate
    return Iterate(
        torch.where(going, at.solution + length * at.direction, at.solution),
        residual,
        torch.where(going, conjugate + slope / at.slope * at.direction, at.direction),
        torch.where(going, slope, at.slope),
        at.size,
        going & (torch.linalg.vector_norm(residual) > tolerance * at.size),
        at.iterations + going,
    )


def solved(operator: Operator, b: Params, damping: float, iterations: int) -> tuple[Params, Scalar]:
    """(x, |r| / |b|) of (A + damping) x = b: one product for each iteration, none truncated by the residual."""
    right = trees.flat(b)
    unit = torch.ones_like(right)
    at = begin(right, unit)
    for _ in range(iterations):
        image = operator(trees.shaped(at.direction, b))
        at = advance(at, trees.flat(trees.pick(image, b)) + damping * at.direction, unit, 0.0)
    return trees.shaped(at.solution, b), torch.linalg.vector_norm(at.residual) / at.size
