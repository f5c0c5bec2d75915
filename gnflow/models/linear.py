"""The linear maps of a model, which a derivative may replace by maps that also show what goes in.

A stage that names `linears` takes a third argument, a `Linear`, and sends these weights through it. Plain evaluation
passes none, and the stage then uses `apply_linear`.
"""

from collections.abc import Callable
from typing import TypeAlias

from torch import Tensor
from torch.nn import functional

from gnflow.objective import Params

Linear: TypeAlias = Callable[[Params, str, Tensor], Tensor]
"""(weights, name of the weight, x) -> x W' (+ b), where the bias b has the name of the weight with `bias` at its
end."""


def apply_linear(weights: Params, name: str, x: Tensor) -> Tensor:
    """Return x W' + b for W = `weights[name]`, or x W' if there is no such bias."""
    return functional.linear(x, weights[name], weights.get(f"{name.removesuffix('weight')}bias"))
