"""Remember the results of operations on the meta device, so that each runs once for every form of its arguments.

torch takes a tenth of a millisecond to find the shape of a sum on the meta device, and a step has many thousand equal
ones.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import TypeAlias

import torch
from torch import Tensor

Operation: TypeAlias = Callable[..., object]
_Form: TypeAlias = tuple[torch.Size, tuple[int, ...], torch.dtype]


class Shortcut:
    """A memory of operations that return one new tensor. It gives an empty tensor of that form the next time."""

    def __init__(self) -> None:
        self._forms: dict[object, _Form] = {}
        self._makes_one: dict[Operation, bool] = {}
        """Return whether an operation returns one tensor, in a storage of its own."""

    def is_write(self, operation: Operation) -> bool:
        """Tell whether an operation returns nothing and only writes into arguments, which have no content here."""
        return not operation._schema.returns  # type: ignore[attr-defined]  # torch types no operators

    def is_view(self, operation: Operation) -> bool:
        """Tell whether the result of an operation lies in the storage of its argument."""
        return bool(getattr(operation, "is_view", False))

    def __call__(self, operation: Operation, args: Sequence[object], kwargs: Mapping[str, object]) -> Tensor | None:
        """Return an empty tensor in place of the result, or None for an unknown call."""
        form = self._forms.get(_describe_call(operation, args, kwargs)) if self._makes_one.get(operation) else None
        return None if form is None else torch.empty_strided(form[0], form[1], dtype=form[2], device="meta")

    def learn(
        self, operation: Operation, args: Sequence[object], kwargs: Mapping[str, object], result: object, new: bool
    ) -> None:
        """Remember a result. `new` says that its storage is not one of the arguments' storages."""
        alone = isinstance(result, Tensor) and result.is_meta and new
        self._makes_one[operation] = alone and self._makes_one.get(operation, True)
        if isinstance(result, Tensor) and alone:
            self._forms[_describe_call(operation, args, kwargs)] = result.shape, result.stride(), result.dtype


def _describe_call(operation: Operation, args: Sequence[object], kwargs: Mapping[str, object]) -> object:
    return operation, tuple(map(_describe_value, args)), tuple(map(_describe_value, kwargs.items())) if kwargs else None


def _describe_value(value: object) -> object:
    if isinstance(value, Tensor):
        return value.shape, value.stride(), value.dtype
    if isinstance(value, tuple | list):
        return tuple(map(_describe_value, value))
    return type(value), value  # 1, 1.0 and True are equal, and make other tensors
