"""Empty results on the meta device, with the nesting and the shared storages of what a region returned."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from gnflow import trees
from gnflow.compiler.storages import find_storage


class _Place(NamedTuple):
    """The place of a tensor: in a storage that the region made, or in the storage of one of its arguments."""

    made: int | None
    argument: int
    size: tuple[int, ...]
    stride: tuple[int, ...]
    offset: int


class Form:
    """The form of a region's result. Empty results repeat which tensors share a storage."""

    def __init__(self, result: object, arguments: Sequence[object]) -> None:
        given = {find_storage(tensor): i for i, tensor in enumerate(trees.list_tensors(arguments))}
        made: dict[int, int] = {}
        self.storages: list[tuple[int, torch.dtype]] = []
        """For each storage that the region made: how many numbers it holds, and their type."""
        self.places: list[_Place] = []

        def find_place(tensor: Tensor) -> int:
            key = find_storage(tensor)
            if key not in given and key not in made:
                made[key] = len(self.storages)
                self.storages.append((tensor.untyped_storage().nbytes() // tensor.element_size(), tensor.dtype))
            where = tuple(tensor.shape), tensor.stride(), int(tensor.storage_offset())
            self.places.append(_Place(None if key in given else made[key], given.get(key, 0), *where))
            return len(self.places) - 1

        self.nesting: object = trees.map_tensors(find_place, result)  # type: ignore[arg-type]  # numbers stand for tensors
        self.asks = any(place.made is None for place in self.places)

    def make_empty(self, arguments: Sequence[object]) -> tuple[object, list[Tensor]]:
        """Return (an empty result, its tensors whose storages are new)."""
        given = trees.list_tensors(arguments) if self.asks else []
        made = [torch.empty_strided((count,), (1,), dtype=dtype, device="meta") for count, dtype in self.storages]
        leaves = [
            (given[argument] if storage is None else made[storage]).as_strided(size, stride, offset)
            for storage, argument, size, stride, offset in self.places
        ]
        return _fill(self.nesting, leaves), made


def _fill(nesting: object, leaves: Sequence[Tensor]) -> object:
    if isinstance(nesting, int):
        return leaves[nesting]
    if isinstance(nesting, Mapping):
        return {key: leaves[part] if isinstance(part, int) else _fill(part, leaves) for key, part in nesting.items()}
    assert isinstance(nesting, tuple)
    parts = tuple(_fill(part, leaves) for part in nesting)
    return nesting._make(parts) if hasattr(nesting, "_make") else parts
