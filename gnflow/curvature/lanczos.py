"""Ritz values of a symmetric operator, by Lanczos with full re-orthogonalisation.

    w = A q_j,   a_j = <q_j, w>,   w <- w - Q Q' w, twice,   b_j = |w|,   q_j+1 = w / b_j         Q = (q_1 .. q_j)
    T = tridiagonal(b, a, b) = S diag(theta) S'        an eigenvalue of A lies within b_m |S_mi| of theta_i

Every theta lies between the extreme eigenvalues of A, which converge first. Eigenvalues that are equal are found once.

Source:   Lanczos 1950; Parlett 1998, "The symmetric eigenvalue problem", chapter 13
Code:     github.com/amirgholami/PyHessian density_weight.py
Differs:  the iteration stops when the Krylov space is exhausted
"""

from collections.abc import Callable
from typing import NamedTuple, TypeAlias

import torch
from torch import Tensor

from gnflow import trees
from gnflow.objective import Params

Operator: TypeAlias = Callable[[Params], Params]
"""vector -> a symmetric matrix times the vector."""


class Ritz(NamedTuple):
    """Ritz values and their errors, each (iterations,) in float64 on the CPU, the largest value first.

    There are fewer if the Krylov space is exhausted.
    """

    values: Tensor
    errors: Tensor
    """The largest possible distance to the nearest eigenvalue."""


def run_lanczos(operator: Operator, start: Params, iterations: int) -> Ritz:
    """Run Lanczos from `start`. Each iteration takes one product and keeps one vector."""
    first = trees.flatten(start)
    basis = first.new_empty((iterations, len(first)))
    basis[0] = first / torch.linalg.vector_norm(first)
    diagonal: list[Tensor] = []
    off: list[Tensor] = []
    rounding = torch.finfo(first.dtype).eps * len(first) ** 0.5
    largest = first.new_zeros(())
    for j in range(iterations):
        image = trees.flatten(trees.pick(operator(trees.unflatten(basis[j], start)), start))
        diagonal.append(basis[j] @ image)
        largest = torch.maximum(largest, torch.linalg.vector_norm(image))
        for _ in range(2):
            image = image - (basis[: j + 1] @ image) @ basis[: j + 1]
        off.append(torch.linalg.vector_norm(image))
        if bool(off[-1] <= rounding * largest):
            break
        if j + 1 < iterations:
            basis[j + 1] = image / off[-1]
    a, b = (torch.stack(found).double().cpu() for found in (diagonal, off))
    values, vectors = torch.linalg.eigh(torch.diag(a) + torch.diag(b[:-1], 1) + torch.diag(b[:-1], -1))
    return Ritz(values.flip(0), (b[-1] * vectors[-1].abs()).flip(0))
