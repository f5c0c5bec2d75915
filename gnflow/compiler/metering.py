"""What a step costs, counted by running it once on the meta device: no memory is allocated, nothing is computed.

The step itself is the real one. Its regions go through the `Meter`, which runs each at the first call under its name
and lets empty tensors of the same form stand for every later one, so that many inner steps are counted in little time.
Work around regions that goes through it, such as an inner step, is run once in the same way.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, cast

import torch
from torch.utils.flop_counter import FlopCounterMode

from gnflow.compiler.forms import Form
from gnflow.compiler.shortcut import Shortcut
from gnflow.compiler.storages import Peak, Storages
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
        self.counts: Counter[str] = Counter()
        """Calls of everything that went through this `Jit`."""
        self._known: dict[str, _Known] = {}
        self._every: dict[str, int] = {}

    def __call__(self, name: str, region: Region, /, every: int | None = None) -> Region:
        """The region, counted."""
        self._every[name] = 1 if every is None else every

        def metered(*arguments: object) -> object:
            self.counts[name] += 1
            if known := self._known.get(name):
                self.counts.update(known.calls)
                self.storages.spiked(known.most)
                return known.again(arguments, self.storages)
            return self._surrounding(name, region, *arguments) if every == 0 else self.priced(name, region, *arguments)

        return cast("Region", metered)

    def priced(self, name: str, region: Callable[..., object], *arguments: object) -> object:
        """The result of the region, run to know its cost; this is no call of a step."""
        with FlopCounterMode(display=False) as flops:
            result, most = self.storages.within(lambda: region(*arguments), region=True)
        self.regions[name] = RegionCost(flops.get_total_flops(), most.total)
        self._known[name] = _Known([Form(part, arguments) for part in _split_result(result)], type(result), most)
        return result

    def _surrounding(self, name: str, work: Callable[..., object], *arguments: object) -> object:
        """The result of work around regions, all of which are counted."""
        before = self.counts.copy()
        result, most = self.storages.within(lambda: work(*arguments), region=False)
        forms, last = (
            [Form(part, arguments) for part in _split_result(result)],
            [id(part) for part in _split_result(result)],
        )
        self._known[name] = _Known(forms, type(result), most, self.counts - before, last)
        return result

    @property
    def calls(self) -> dict[str, float]:
        """Region -> calls; of one that works once in so many of them, only those in which it does."""
        counted = ((name, n, self._every[name]) for name, n in self.counts.items())
        return {name: n if every == 1 else n / every for name, n, every in counted if every}


@dataclass
class _Known:
    """A region, or work around regions, as it was when it ran."""

    forms: list[Form]
    """Of each part of its result, if that is a tuple."""
    kind: type
    most: Peak
    calls: Counter[str] = field(default_factory=Counter)
    """Calls of the regions inside, of work around regions."""
    last: Sequence[int] = ()
    """By which the parts of the last result of such work are known."""

    def again(self, arguments: Sequence[object], storages: Storages) -> object:
        """What stands for the result.

        An inner step is given what it returned the time before: that is given back, as what takes its place is as
        large.
        """
        given = {id(argument): argument for argument in arguments}
        parts = [given.get(part) for part in self.last] or [None] * len(self.forms)
        for i, form in enumerate(self.forms):
            if parts[i] is None:
                with torch._C._DisableTorchDispatch():
                    parts[i], made = form.empty(arguments)
                storages.held(made)
        self.last = [id(part) for part in parts] if self.last else ()
        return tuple(parts) if self.kind is tuple else parts[0]


def _split_result(result: object) -> Sequence[object]:
    return result if type(result) is tuple else (result,)
