"""Divides directions by the root of their second moment and keeps their lengths.

    V  <- b V + (1 - b) X^2,   X^2 entry by entry, or its mean over each row
    X1 <- X / (sqrt V + eps)
    X2 <- X1 |X| / |X1|                                                              Frobenius norms of each matrix

V needs no correction of its bias, since the norms cancel any factor on all of it.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from gnflow.objective import Params


def square_entries(x: Tensor) -> Tensor:
    """Return the square of every entry."""
    return x.square()


def square_rows(x: Tensor) -> Tensor:
    """Return the mean square of every row: (..., m, n) -> (..., m, 1)."""
    # A row without entries has no mean.
    return x.square().sum(-1, keepdim=True) / max(x.shape[-1], 1)


def divide_by_root(
    directions: Params, second: Params, beta: float, eps: float, square: Callable[[Tensor], Tensor]
) -> tuple[Params, Params]:
    """Return (X2, V) for the directions X and the V before."""
    moments = {name: beta * v + (1 - beta) * square(directions[name]) for name, v in second.items()}
    return {name: _match_norm(x / (moments[name].sqrt() + eps), x) for name, x in directions.items()}, moments


def _match_norm(x: Tensor, like: Tensor) -> Tensor:
    """Scale x to the Frobenius norm of the other; zero stays zero."""
    tiny = torch.finfo(x.dtype).tiny
    norm, wanted = (torch.linalg.vector_norm(each, dim=(-2, -1), keepdim=True) for each in (x, like))
    scaled: Tensor = x * (wanted / norm.clamp(min=tiny))
    return scaled
