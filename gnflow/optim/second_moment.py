"""Directions divided by the root of their second moment, which stay as long as they were.

    V  <- b V + (1 - b) X^2,   X^2 entry by entry, or its mean over each row
    X1 <- X / (sqrt V + eps)
    X2 <- X1 |X| / |X1|                                                              Frobenius norms of each matrix

V needs no correction of its bias: a factor on all of it is taken out again by the norms.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from gnflow.objective import Params


def entrywise(x: Tensor) -> Tensor:
    """The square of every entry."""
    return x.square()


def by_row(x: Tensor) -> Tensor:
    """(..., m, n) -> (..., m, 1): the mean square of every row."""
    # A row without entries has no mean.
    return x.square().sum(-1, keepdim=True) / max(x.shape[-1], 1)


def divided(
    directions: Params, second: Params, beta: float, eps: float, squares: Callable[[Tensor], Tensor]
) -> tuple[Params, Params]:
    """(X2, V) of directions and of the V before."""
    moments = {name: beta * v + (1 - beta) * squares(directions[name]) for name, v in second.items()}
    return {name: _as_long(x / (moments[name].sqrt() + eps), x) for name, x in directions.items()}, moments


def _as_long(x: Tensor, as_: Tensor) -> Tensor:
    """x with the Frobenius norm of the other; zero stays zero."""
    tiny = torch.finfo(x.dtype).tiny
    norm, wanted = (torch.linalg.vector_norm(each, dim=(-2, -1), keepdim=True) for each in (x, as_))
    scaled: Tensor = x * (wanted / norm.clamp(min=tiny))
    return scaled
