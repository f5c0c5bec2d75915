"""Means over micro-batches, each by its weight, so that they are means over all targets.

x = sum_m W_m x_m / sum_m W_m       W_m = sum of the weights of the targets of micro-batch m
"""

from collections.abc import Callable

import torch
from torch import Tensor

from gnflow.objective import Objective, Params, Scalar, Tokens


def weights(objective: Objective, batch: Tensor) -> Tensor:
    """W, (micro-batches,)"""
    return torch.stack([objective.weight(tokens) for tokens in batch])


def mean_value(objective: Objective, value: Callable[[Tokens], Scalar], batch: Tensor) -> Scalar:
    """Of what `value` says of each micro-batch."""
    return _mean(torch.stack([value(tokens) for tokens in batch]), weights(objective, batch))


def mean_gradient(objective: Objective, params: Params, batch: Tensor) -> tuple[Params, Scalar]:
    """Gradient and loss, holding a running sum and the current gradient."""
    if len(batch) == 1:
        return objective.gradient(params, batch[0])
    counts = weights(objective, batch)
    total: dict[str, Tensor] = {}
    losses = []
    for tokens, count in zip(batch, counts, strict=True):
        gradient, loss = objective.gradient(params, tokens)
        torch._foreach_mul_(list(gradient.values()), count)
        if total:
            torch._foreach_add_(list(total.values()), list(gradient.values()))
        total = total or gradient
        losses.append(loss)
    torch._foreach_div_(list(total.values()), positive(counts.sum()))
    return total, _mean(torch.stack(losses), counts)


def positive(x: Tensor) -> Tensor:
    """Something to divide by."""
    return x.clamp(min=torch.finfo(x.dtype).tiny)


def _mean(values: Tensor, counts: Tensor) -> Scalar:
    return (counts * values).sum() / positive(counts.sum())
