"""Parts of an update: what each costs, and which process owns it."""

from collections.abc import Iterable, Mapping
from math import prod
from typing import NamedTuple

from gnflow.compiler.blocks import assign_evenly
from gnflow.compiler.metering import Meter
from gnflow.compiler.storages import count_bytes
from gnflow.optim.by_part import name_part
from gnflow.optim.descent import Descent
from gnflow.optim.protocol import Part, name_in_block

FLOPS_OF_NUMBER = 1_000
"""Cost of each number of an update, in FLOPs: it moves some ten numbers in memory, at about 100 FLOPs each."""


class PartCost(NamedTuple):
    """The size of a part, and the cost of one update of it."""

    names: tuple[str, ...]
    numbers: int
    state: int
    """Bytes of the optimizer's state."""
    flops: float
    """FLOPs of matrix products, with the share of an amortised refresh."""

    @property
    def cost(self) -> float:
        """The cost by which parts are shared out, in FLOPs."""
        return self.flops + FLOPS_OF_NUMBER * self.numbers


def price_parts(parts: Iterable[Part], meter: Meter) -> dict[str, PartCost]:
    """Price each part of an optimizer whose step the meter has run."""
    found = {}
    for solver, params, state in parts:
        assert isinstance(solver, Descent)
        (form,) = solver.stacks.members
        flops: float = meter.regions[name_in_block("update", form)].flops
        if refresh := meter.regions.get(name_in_block("refresh", form)):
            flops += refresh.flops / solver.transform.period
        numbers = sum(prod(weight.shape) for weight in params.values())
        found[name_part(solver.stacks)] = PartCost(tuple(params), numbers, count_bytes(state), flops)
    return found


def assign_parts(parts: Mapping[str, PartCost], processes: int) -> dict[str, int]:
    """Assign each part to a process, by cost."""
    return assign_evenly({name: part.cost for name, part in parts.items()}, processes)
