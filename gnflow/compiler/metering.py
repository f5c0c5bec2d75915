"""What a step costs, counted by running it once on the meta device: no memory is allocated, nothing is computed.

The step itself is the real one. Its regions go through the `Meter`, which runs each at the first call under its name
and lets empty tensors of the same form stand for every later one, so that many inner steps are counted in little time.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple, cast

import torch
from torch import Tensor
from torch.utils import _pytree as pytree
from torch.utils.flop_counter import FlopCounterMode

from gnflow.compiler.shortcut import Shortcut
from gnflow.compiler.storages import Storages, tensors
from gnflow.optim.protocol import Region


class RegionCost(NamedTuple):
    """FLOPs of the matrix products, and bytes alive at the peak beyond the arguments (as if run eagerly)."""

    flops: int
    peak_bytes: int


class Meter:
    """A `Jit` that counts calls and prices regions, inside `with meter.storages`."""

    def __init__(self) -> None:
        self.storages = Storages(Shortcut())
        self.regions: dict[str, RegionCost] = {}
        self.counts: dict[str, int] = {}
        self._every: dict[str, int] = {}
        self._forms: dict[str, _Form] = {}

    def __call__(self, name: str, region: Region, /, every: int | None = None) -> Region:
        """The region, counted."""

        def metered(*arguments: object) -> object:
            self.counts[name] = self.counts.get(name, 0) + 1
            self._every[name] = every or 1
            if name not in self._forms:
                return self.priced(name, region, *arguments)
            self.storages.spiked(self.regions[name].peak_bytes)
            with torch._C._DisableTorchDispatch():
                result = self._forms[name].empty(arguments)
            self.storages.held(result)
            return result

        return cast("Region", metered)

    def priced(self, name: str, region: Callable[..., object], *arguments: object) -> object:
        """The result of the region, run to know its cost; this is no call of a step."""
        with FlopCounterMode(display=False) as flops:
            result, most = self.storages.inside(lambda: region(*arguments))
        self.regions[name] = RegionCost(flops.get_total_flops(), most)
        self._forms[name] = _Form.of(result, arguments)
        return result

    @property
    def calls(self) -> dict[str, float]:
        """Region -> calls; of one that works once in so many of them, only those in which it does."""
        return {name: n if self._every[name] == 1 else n / self._every[name] for name, n in self.counts.items()}


class _Place(NamedTuple):
    """Where a tensor that a region returned lies."""

    storage: int
    """Of those that the region made; a tensor in a storage of an argument has `argument` instead."""
    argument: int | None
    size: tuple[int, ...]
    stride: tuple[int, ...]
    offset: int


class _Form(NamedTuple):
    """What a region returns, without any content: two tensors that shared a storage do so again."""

    structure: pytree.TreeSpec
    places: tuple[_Place, ...]
    storages: tuple[tuple[int, torch.dtype], ...]
    """Numbers in each storage that the region made, and their type."""

    @classmethod
    def of(cls, result: object, arguments: Sequence[object]) -> "_Form":
        given = {_storage(tensor): i for i, tensor in enumerate(tensors(arguments))}
        made: dict[int, int] = {}
        storages: list[tuple[int, torch.dtype]] = []
        leaves, structure = pytree.tree_flatten(result)
        places = []
        for leaf in leaves:
            key = _storage(leaf)
            if key not in given and key not in made:
                made[key] = len(storages)
                storages.append((leaf.untyped_storage().nbytes() // leaf.element_size(), leaf.dtype))
            where = tuple(leaf.shape), leaf.stride(), leaf.storage_offset()
            places.append(_Place(made.get(key, 0), given.get(key), *where))
        return cls(structure, tuple(places), tuple(storages))

    def empty(self, arguments: Sequence[object]) -> object:
        given = list(tensors(arguments))
        made = [torch.empty_strided((count,), (1,), dtype=dtype, device="meta") for count, dtype in self.storages]
        leaves = [
            (made[place.storage] if place.argument is None else given[place.argument]).as_strided(*place[2:])
            for place in self.places
        ]
        return pytree.tree_unflatten(leaves, self.structure)


def _storage(tensor: Tensor) -> int:
    return int(tensor.untyped_storage()._cdata)
