"""Weighted means over micro-batches, which are then means over all targets.

x = sum_m W_m x_m / sum_m W_m       W_m = sum of the weights of the targets of micro-batch m

The crew of the objective says which micro-batches this process evaluates, and in which order they are added.
"""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from gnflow.crew import ALONE, Crew
from gnflow.objective import LocalModel, Params, Scalar, Slopes, Tokens, Watch


def weigh_microbatches(objective: Slopes, batch: Tensor) -> Tensor:
    """Return W, (micro-batches,)."""
    return torch.stack([objective.weight(tokens) for tokens in batch])


def average_value(value: Callable[[Tokens], Scalar], batch: Tensor, counts: Tensor, crew: Crew = ALONE) -> Scalar:
    """Return the mean of `value` over micro-batches. `counts` are the `weigh_microbatches` of the batch."""
    return _average(crew.gather_values(lambda number: value(batch[number]), len(batch)), counts)


def average_gradient(
    objective: Slopes, params: Params, batch: Tensor, owners: Mapping[str, int] | None = None
) -> tuple[Params, Scalar]:
    """Return the mean gradient and loss. It holds a running sum and the current gradient.

    With `owners` (parameter -> rank) a process may get only the gradient of what it owns.
    """
    if len(batch) == 1:
        return objective.gradient(params, batch[0])
    crew, counts = objective.crew, weigh_microbatches(objective, batch)
    losses = []

    def weighted(number: int) -> Params:
        gradient, loss = objective.gradient(params, batch[number])
        losses.append(loss)
        return _weigh(gradient, counts[number])

    gradient = _divide(crew.add_up(weighted, len(batch), owners), counts)
    return gradient, _average(crew.gather(losses, crew.list_summed(len(batch))), counts)


def average_product(model: LocalModel, direction: Params, batch: Tensor) -> Params:
    """Return the mean curvature times `direction`. It holds a running sum and the current product."""
    if len(batch) == 1:
        return model.product(direction, batch[0])
    counts = weigh_microbatches(model, batch)
    total = model.crew.add_up(lambda m: _weigh(model.product(direction, batch[m]), counts[m]), len(batch))
    return _divide(total, counts)


def average_diagonal(model: LocalModel, batch: Tensor, draw: Callable[[int], Tensor]) -> Params:
    """Return the mean of the estimates of curvature. `draw` makes the noise of the micro-batch of this index.

    It holds a running sum and the current estimate.
    """
    if len(batch) == 1:
        return model.diagonal(draw(0), batch[0])
    counts = weigh_microbatches(model, batch)
    total = model.crew.add_up(lambda m: _weigh(model.diagonal(draw(m), batch[m]), counts[m]), len(batch))
    return _divide(total, counts)


def average_signals(model: LocalModel, batch: Tensor, draw: Callable[[int], Tensor], watch: Watch) -> dict[str, Params]:
    """Return the mean of the statistics of linear layers, by weight. `draw` makes the noise as for the diagonal."""
    if len(batch) == 1:
        return model.signals(draw(0), watch, batch[0])
    counts, keys = weigh_microbatches(model, batch), dict[str, tuple[str, str]]()

    def weighted(number: int) -> Params:
        found = model.signals(draw(number), watch, batch[number])
        keys.update({f"{key}:{name}": (name, key) for name, each in found.items() for key in each})
        return _weigh({label: found[name][key] for label, (name, key) in keys.items()}, counts[number])

    total = _divide(model.crew.add_up(weighted, len(batch)), counts)
    result: dict[str, Params] = {name: {} for name in watch.statistics}
    for label, (name, key) in keys.items():
        result[name][key] = total[label]
    return result


def keep_positive(x: Tensor) -> Tensor:
    """Raise values to at least the smallest positive number, so that one can divide by them."""
    return x.clamp(min=torch.finfo(x.dtype).tiny)


def _weigh(tree: Params, count: Tensor) -> Params:
    """Multiply in place."""
    torch._foreach_mul_(list(tree.values()), count)
    return tree


def _divide(total: Params, counts: Tensor) -> Params:
    """Divide in place by the sum of all counts."""
    torch._foreach_div_(list(total.values()), keep_positive(counts.sum()))
    return total


def _average(values: Tensor, counts: Tensor) -> Scalar:
    return (counts * values).sum() / keep_positive(counts.sum())
