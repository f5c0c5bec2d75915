"""What one call of a region costs, found by running it on the meta device: no memory is allocated."""

import weakref
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode


class RegionCost(NamedTuple):
    """FLOPs of the matrix products, and bytes alive at the peak beyond the arguments (as if run eagerly)."""

    flops: int
    peak_bytes: int


class _Peak(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch leaves it untyped
    """Follows the storages that operations create until they are freed."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # torch leaves it untyped
        self.live, self.peak = 0, 0
        self.seen: set[int] = set()

    def __torch_dispatch__(
        self,
        func: Callable[..., object],
        types: object,
        args: tuple[object, ...] = (),
        kwargs: dict[str, object] | None = None,
    ) -> object:
        for leaf in pytree.tree_leaves((args, kwargs)):
            if isinstance(leaf, Tensor):
                self._known(leaf, count=False)
        result = func(*args, **(kwargs or {}))
        for leaf in pytree.tree_leaves(result):
            if isinstance(leaf, Tensor):
                self._known(leaf, count=True)
        return result

    def _known(self, tensor: Tensor, count: bool) -> None:
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key in self.seen:
            return
        self.seen.add(key)
        size = storage.nbytes() if count else 0
        self.live += size
        self.peak = max(self.peak, self.live)
        weakref.finalize(storage, self._freed, key, size)

    def _freed(self, key: int, size: int) -> None:
        self.seen.discard(key)
        self.live -= size


def region_cost(region: Callable[..., object], *arguments: object) -> RegionCost:
    """Cost of `region(*arguments)` with arguments on the meta device."""
    with FlopCounterMode(display=False) as flops, _Peak() as peak:
        region(*arguments)
    return RegionCost(flops.get_total_flops(), peak.peak)


def nbytes(tree: object) -> int:
    """Bytes of all tensors in a nested state."""
    return sum(
        leaf.numel() * leaf.element_size() for leaf in pytree.tree_leaves(tree) if isinstance(leaf, torch.Tensor)
    )
