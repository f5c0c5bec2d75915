"""Count the cost of a step by running it once on the meta device, which allocates and computes nothing.

The step is the real one. Its regions go through the `Meter`, which runs a region at its first call and returns empty
tensors of the same form at every later call, so that many inner steps are counted in little time. Python code around
regions, such as an inner step, can go through the meter too. It is run once for every number of storages of its
arguments.
"""

from collections import Counter
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, cast

import torch
from torch.utils.flop_counter import FlopCounterMode
from torch.utils.module_tracker import ModuleTracker

from gnflow import trees
from gnflow.compiler.forms import Form
from gnflow.compiler.shortcut import Shortcut
from gnflow.compiler.storages import Peak, Storages, find_storage
from gnflow.objective import Watch
from gnflow.optim.protocol import Region


class RegionCost(NamedTuple):
    """FLOPs of the matrix products, and peak bytes beyond the arguments, as if the region ran eagerly."""

    flops: int
    peak_bytes: int


class _Untracked(ModuleTracker):
    """Tracks no modules: its hooks fail inside torch.func, and no count here is by module."""

    def __enter__(self) -> "_Untracked":
        return self

    def __exit__(self, *error: object) -> None:
        """Remove nothing."""


class Meter:
    """A `Jit` that counts calls and prices regions, inside `with meter.storages`."""

    def __init__(self) -> None:
        self.storages = Storages(Shortcut())
        self.regions: dict[str, RegionCost] = {}
        self.counts: Counter[str] = Counter()
        """Number of calls of everything that went through this `Jit`."""
        self.returned: Counter[tuple[str, int]] = Counter()
        """(region, how many numbers its result has) -> number of calls."""
        self._known: dict[Hashable, _Known] = {}
        self._every: dict[str, int] = {}

    def __call__(self, name: str, region: Region, /, every: int | None = None) -> Region:
        """Return the region with its calls counted."""
        self._every[name] = 1 if every is None else every

        def meter(*arguments: object) -> object:
            self.counts[name] += 1
            is_around = self._every[name] <= 0
            if known := self._known.get(_describe_call(name, arguments, is_around)):
                self.counts.update(known.calls)
                self.returned.update(known.returned)
                self.storages.add_peak(known.most)
                return known.stand_in(arguments, self.storages)
            if is_around:
                return self._run_around(name, region, *arguments)
            result = self.price(name, region, *arguments)
            self.returned.update(self._known[_describe_call(name, arguments)].returned)
            return result

        return cast("Region", meter)

    def price(self, name: str, region: Callable[..., object], *arguments: object) -> object:
        """Run the region to learn its cost and return its result. This does not count as a call."""
        flops = FlopCounterMode(display=False)
        flops.mod_tracker = _Untracked()
        with flops:
            result, most = self.storages.measure(lambda: region(*arguments), region=True)
        self.regions[name] = RegionCost(flops.get_total_flops(), most.total)
        forms = [Form(part, arguments) for part in _split_result(result)]
        numbers = sum(tensor.numel() for tensor in trees.name_tensors((result,)).values())
        known = _Known(forms, type(result), most, returned=Counter({(name, numbers): 1}))
        self._known[_describe_call(name, arguments)] = known
        return result

    def _run_around(self, name: str, work: Callable[..., object], *arguments: object) -> object:
        """Run code around regions, count its calls, and return its result.

        If the code is due once in several calls, so are the regions inside.
        """
        before, returned = self.counts.copy(), self.returned.copy()
        result, most = self.storages.measure(lambda: work(*arguments), region=False)
        parts = _split_result(result)
        forms, last = [Form(part, arguments) for part in parts], [id(part) for part in parts]
        inside = self.counts - before
        self._known[_describe_call(name, arguments, is_around=True)] = _Known(
            forms, type(result), most, inside, last, self.returned - returned
        )
        if self._every[name] < 0:
            self._every |= dict.fromkeys(inside, -self._every[name])
        return result

    @property
    def calls(self) -> dict[str, float]:
        """Region -> number of calls. A region that works only in some calls has only those counted, on average."""
        counted = ((name, n, self._every[name]) for name, n in self.counts.items())
        return {name: n if every == 1 else n / every for name, n, every in counted if every > 0}

    def count_results(self, *names: str) -> dict[int, float]:
        """Return, by how many numbers a result has, the number of calls of these regions, counted as in `calls`."""
        found: dict[int, float] = {}
        for (name, numbers), n in self.returned.items():
            if name in names:
                found[numbers] = found.get(numbers, 0) + n / self._every[name]
        return found


@dataclass
class _Known:
    """A region, or code around regions, with the form of its result and its cost."""

    forms: list[Form]
    """The form of each part of the result, if that is a tuple, or else of the whole."""
    kind: type
    most: Peak
    calls: Counter[str] = field(default_factory=Counter)
    """Number of calls of the regions inside, for code around regions."""
    last: Sequence[int] = ()
    """The ids of the parts of the last result, for code around regions."""
    returned: Counter[tuple[str, int]] = field(default_factory=Counter)
    """The entries that one call adds to `Meter.returned`."""

    def stand_in(self, arguments: Sequence[object], storages: Storages) -> object:
        """Return an empty result.

        An inner step gets what it returned the time before. It is returned again, since its successor has the same
        size.
        """
        given = {id(argument): argument for argument in arguments}
        parts = [given.get(part) for part in self.last] or [None] * len(self.forms)
        for i, form in enumerate(self.forms):
            if parts[i] is None:
                with torch._C._DisableTorchDispatch():
                    parts[i], made = form.make_empty(arguments)
                storages.hold(made)
        self.last = [id(part) for part in parts] if self.last else ()
        return tuple(parts) if self.kind is tuple else parts[0]


def _describe_call(name: str, arguments: Sequence[object], is_around: bool = False) -> Hashable:
    """Return a key for calls whose results have one form, and which copy the same tensors.

    Code around regions copies parameters unless they share a storage (`Stacks.rejoin`).
    """
    storages = len({find_storage(tensor) for tensor in trees.list_tensors(arguments)}) if is_around else 0
    return name, storages, *(each.form for each in arguments if isinstance(each, Watch))


def _split_result(result: object) -> Sequence[object]:
    return result if type(result) is tuple else (result,)
