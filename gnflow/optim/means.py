"""Weighted means over micro-batches, which are then means over all targets.

x = sum_m W_m x_m / sum_m W_m       W_m = sum of the weights of the targets of micro-batch m
"""

from collections.abc import Callable, Iterable, Iterator

import torch
from torch import Tensor

from gnflow.objective import LocalModel, Objective, Params, Scalar, Slopes, Tokens


def weigh_microbatches(objective: Slopes, batch: Tensor) -> Tensor:
    """Returns W, (micro-batches,)."""
    return torch.stack([objective.weight(tokens) for tokens in batch])


def average_value(value: Callable[[Tokens], Scalar], batch: Tensor, counts: Tensor) -> Scalar:
    """Returns the mean of `value` over micro-batches. `counts` are the `weigh_microbatches` of the batch."""
    return _average(torch.stack([value(tokens) for tokens in batch]), counts)


def average_gradient(objective: Slopes, params: Params, batch: Tensor) -> tuple[Params, Scalar]:
    """Returns the mean gradient and loss. It holds a running sum and the current gradient."""
    if len(batch) == 1:
        return objective.gradient(params, batch[0])
    losses = []

    def yield_gradients() -> Iterator[Params]:
        for tokens in batch:
            gradient, loss = objective.gradient(params, tokens)
            losses.append(loss)
            yield gradient

    counts = weigh_microbatches(objective, batch)
    return _average_tree(yield_gradients(), counts), _average(torch.stack(losses), counts)


def average_product(model: LocalModel, direction: Params, batch: Tensor) -> Params:
    """Returns the mean curvature times `direction`. It holds a running sum and the current product."""
    if len(batch) == 1:
        return model.product(direction, batch[0])
    products = (model.product(direction, tokens) for tokens in batch)
    return _average_tree(products, weigh_microbatches(model, batch))


def average_diagonal(objective: Objective, params: Params, batch: Tensor, draw: Callable[[int], Tensor]) -> Params:
    """Returns the mean of the estimates of curvature. `draw` makes the noise of the micro-batch of this index.

    It holds a running sum and the current estimate.
    """
    if len(batch) == 1:
        return objective.diagonal(params, draw(0), batch[0])
    estimates = (objective.diagonal(params, draw(i), tokens) for i, tokens in enumerate(batch))
    return _average_tree(estimates, weigh_microbatches(objective, batch))


def keep_positive(x: Tensor) -> Tensor:
    """Raises values to at least the smallest positive number, so that one can divide by them."""
    return x.clamp(min=torch.finfo(x.dtype).tiny)


def _average_tree(trees: Iterable[Params], counts: Tensor) -> Params:
    """Returns the weighted mean of trees, and consumes them."""
    total: Params = {}
    for tree, count in zip(trees, counts, strict=True):
        torch._foreach_mul_(list(tree.values()), count)
        if total:
            torch._foreach_add_(list(total.values()), list(tree.values()))
        total = total or tree
    torch._foreach_div_(list(total.values()), keep_positive(counts.sum()))
    return total


def _average(values: Tensor, counts: Tensor) -> Scalar:
    return (counts * values).sum() / keep_positive(counts.sum())
