"""Read off how a class of transformers draws its first weights, without drawing them.

The class initialises a model on the meta device, where nothing is computed; what it calls on each weight is recorded.
"""

from collections.abc import Callable, Mapping
from math import sqrt
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from gnflow.models.model import Weight

UNIFORM = 1 / sqrt(12)
"""Deviation of a uniform number between 0 and 1."""


class Law(NamedTuple):
    """The distribution of the entries of a weight: normal with deviation `std`, or constant if `std` is None."""

    std: float | None
    value: float = 0.0


class Draws(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch leaves it untyped
    """Notes the law of every tensor that is filled while the mode is on."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # torch leaves it untyped
        self.laws: dict[int, Law] = {}
        """id of a tensor -> the law of its entries."""

    def __torch_dispatch__(
        self, function: Any, types: Any, arguments: tuple[Any, ...] = (), named: Mapping[str, Any] | None = None
    ) -> Any:
        """Note what an operator in place does to its first argument, and carry it out."""
        named = dict(named or {})
        name = function.overloadpacket.__name__
        first, *others = arguments or (None,)
        if isinstance(first, Tensor) and name.endswith("_"):
            self._note(id(first), name, [*others, *named.values()])
        return function(*arguments, **named)

    def _note(self, key: int, name: str, given: list[Any]) -> None:
        numbers = [float(each) for each in given if isinstance(each, int | float)]
        known = self.laws.get(key)
        match name:
            case "normal_":
                _, std = (*numbers, *(0.0, 1.0)[len(numbers) :])
                self.laws[key] = Law(std)
            case "uniform_":
                low, high = (*numbers, *(0.0, 1.0)[len(numbers) :])
                self.laws[key] = Law((high - low) * UNIFORM)
            case "zero_":
                self.laws[key] = Law(None, 0.0)
            case "fill_" if numbers:
                self.laws[key] = Law(None, numbers[0])
            case "erfinv_":  # trunc_normal_: a uniform number is turned into a normal one, then scaled
                self.laws[key] = Law(sqrt(0.5))
            case "mul_" if known is not None and known.std is not None and numbers:
                self.laws[key] = Law(known.std * numbers[0])
            case "copy_":
                self.laws.pop(key, None)


def declare_weights(model: nn.Module, initialise: Callable[[], object]) -> dict[str, Weight]:
    """Declare every weight of a model on the meta device as `initialise` would fill it. Tied weights come once.

    Raises LookupError with the names of those that are filled by other means.
    """
    with Draws() as draws, torch.no_grad():
        initialise()
    weights = dict(model.named_parameters())
    if unknown := [name for name, weight in weights.items() if id(weight) not in draws.laws]:
        raise LookupError(", ".join(unknown[:3]))
    laws = {name: draws.laws[id(weight)] for name, weight in weights.items()}
    return {name: Weight(tuple(weights[name].shape), law.std, law.value) for name, law in laws.items()}
