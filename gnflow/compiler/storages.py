"""Count the bytes that are alive during a computation on any device: every storage from its creation to its end.

On the meta device nothing is allocated, but the same bytes are counted.
"""

import weakref
from collections.abc import Callable
from typing import NamedTuple

from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from gnflow import trees
from gnflow.compiler.shortcut import Shortcut


class Peak(NamedTuple):
    """The largest number of bytes alive at one time, and how many of them the region running then had made."""

    total: int = 0
    inside: int = 0


class Storages(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch leaves it untyped
    """A mode that counts the storages which operations create, and those of existing tensors given to `hold`."""

    def __init__(self, shortcut: Shortcut | None = None) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # torch leaves it untyped
        self.shortcut = shortcut
        self.alive = 0
        self.peak = Peak()
        self._floor: int | None = None
        """Number of bytes alive when the running region began; None outside of regions."""
        self._seen: dict[int, weakref.ref[object]] = {}

    def hold(self, tree: object) -> None:
        """Count the storages of existing tensors, for as long as they exist."""
        for tensor in trees.list_tensors(tree):
            self._count(tensor)
        self._mark()

    def begin(self) -> None:
        """Forget the peak so far."""
        self.peak = Peak(self.alive)

    def measure(self, work: Callable[[], object], region: bool) -> tuple[object, Peak]:
        """Run `work` and return (its result, its own peak beyond what was alive before)."""
        before, floor, start = self.peak, self._floor, self.alive
        self.peak, self._floor = Peak(start), start if region else floor
        try:
            result = work()
        finally:
            self._floor = floor
        most = Peak(self.peak.total - start, self.peak.inside)
        self.peak = max(before, self.peak)
        return result, most

    def add_peak(self, most: Peak) -> None:
        """Count the peak of work that is not run again."""
        self.peak = max(self.peak, Peak(self.alive + most.total, most.inside))

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """Return False. Else torch would wrap every operation to keep Dynamo out, which compiles nothing here."""
        return False

    def __torch_dispatch__(
        self,
        func: Callable[..., object],
        types: object,
        args: tuple[object, ...] = (),
        kwargs: dict[str, object] | None = None,
    ) -> object:
        kwargs = kwargs or {}
        if self.shortcut is not None:
            if self.shortcut.is_write(func):
                return None
            if self.shortcut.is_view(func):
                return func(*args, **kwargs)
            if (known := self.shortcut(func, args, kwargs)) is not None:
                self._count(known)
                self._mark()
                return known
        result, given = func(*args, **kwargs), _find_storages((args, kwargs))
        new = [
            leaf for leaf in trees.list_tensors(result) if find_storage(leaf) not in given
        ]  # others are views, or were written into
        for leaf in new:
            self._count(leaf)
        self._mark()
        if self.shortcut is not None:
            self.shortcut.learn(func, args, kwargs, result, bool(new))
        return result

    def _count(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        if (key := storage._cdata) in self._seen:
            return
        size = storage.nbytes()

        def free(_: object) -> None:
            del self._seen[key]
            self.alive -= size

        self._seen[key] = weakref.ref(storage, free)
        self.alive += size

    def _mark(self) -> None:
        if self.alive > self.peak.total:
            self.peak = Peak(self.alive, 0 if self._floor is None else self.alive - self._floor)


def find_storage(tensor: Tensor) -> int:
    """Return a number that identifies a storage while it exists."""
    return int(tensor.untyped_storage()._cdata)


def _find_storages(tree: object) -> set[int]:
    return {find_storage(tensor) for tensor in trees.list_tensors(tree)}


def count_bytes(tree: object) -> int:
    """Count the bytes of all tensors in a nested state."""
    return sum(leaf.numel() * leaf.element_size() for leaf in trees.list_tensors(tree))
