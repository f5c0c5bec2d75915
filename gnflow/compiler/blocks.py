"""Regions of layerwise Gauss-Newton: which blocks get a `curved` region of their own, and which region a call uses."""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple, TypeAlias, TypeVar

from torch import Tensor

from gnflow import trees
from gnflow.compiler.metering import Meter
from gnflow.models.model import Model
from gnflow.objective import Objective, Params, Scalar, Tokens
from gnflow.optim.protocol import Jit, compile_regions, jit_for_block, name_in_block

Curved: TypeAlias = Callable[[Params, Params, Tokens], tuple[Params, Scalar]]
Product: TypeAlias = Callable[[Params, Params, Tokens], Params]
R = TypeVar("R")

LARGEST_SHARE = 0.9
"""Largest part of the FLOPs of `curved` that a block's region may take. One that takes more is not worth compiling."""


class BlockRegion(NamedTuple):
    """The region that a block is solved in, and the cost of a region of its own relative to that of all parameters."""

    names: tuple[str, ...]
    region: str
    share: float

    @property
    def own(self) -> bool:
        """True if the block has a region of its own."""
        return self.share <= LARGEST_SHARE

    @property
    def cost(self) -> float:
        """The cost of an inner step on the block, relative to one on all parameters."""
        return self.share if self.own else 1.0


def price_blocks(
    network: Model, problem: Objective, params: Params, tokens: Tensor, meter: Meter
) -> dict[str, BlockRegion]:
    """Price a region for each block of the model. `params` and `tokens` are on the meta device."""
    meter.price("curved", problem.curved, trees.pick(params, network.moving), params, tokens)
    whole, found = meter.regions["curved"].flops, {}
    for block, names in network.moving_blocks.items():
        region = name_in_block("curved", block)
        meter.price(region, problem.curved, trees.pick(params, names), params, tokens)
        share = meter.regions[region].flops / whole
        found[block] = BlockRegion(names, region if share <= LARGEST_SHARE else "curved", share)
    return found


def assign_blocks(blocks: Mapping[str, BlockRegion], processes: int) -> dict[str, int]:
    """Assign each block to a process."""
    return assign_evenly({name: block.cost for name, block in blocks.items()}, processes)


def assign_evenly(costs: Mapping[str, float], processes: int) -> dict[str, int]:
    """Assign each item to the process that has the least to do so far, the most expensive item first.

    The largest cost of a process is at most 4/3 of the smallest possible (Graham 1969).
    """
    load = [0.0] * processes
    owners = {}
    for name in sorted(costs, key=lambda name: -costs[name]):
        owners[name] = load.index(min(load))
        load[owners[name]] += costs[name]
    return {name: owners[name] for name in costs}


def divide_by_block(problem: Objective, own: Mapping[str, tuple[str, ...]], network: Model, jit: Jit) -> Objective:
    """Pass the regions of an objective through `jit` and give each block in `own` regions of its own."""
    regions = compile_regions(problem, jit)
    curved = {frozenset(names): jit_for_block(jit, block)("curved", problem.curved) for block, names in own.items()}
    product = {frozenset(names): jit_for_block(jit, block)("product", problem.product) for block, names in own.items()}
    return regions._replace(
        curved=dispatch(regions.curved, curved, network.moving),
        product=dispatch_product(regions.product, product, network.moving),
    )


def dispatch(whole: Curved, parts: Mapping[frozenset[str], Curved], moving: Sequence[str]) -> Curved:
    """Make a `curved` that uses the region in `parts` for exactly its parameters, or else `whole`."""

    def curved(params: Params, anchor: Params, tokens: Tokens) -> tuple[Params, Scalar]:
        if region := _find_region(whole, parts, moving, params):
            return region(params, anchor, tokens)
        # Clones, since params that alias the anchor would compile `whole` a second time.
        gradient, value = whole({**trees.clone(trees.pick(anchor, moving)), **params}, anchor, tokens)
        return trees.pick(gradient, params), value

    return curved


def dispatch_product(whole: Product, parts: Mapping[frozenset[str], Product], moving: Sequence[str]) -> Product:
    """Do the same for `product`. For `whole` the direction is extended by zeros in all other parameters."""

    def product(direction: Params, anchor: Params, tokens: Tokens) -> Params:
        if region := _find_region(whole, parts, moving, direction):
            return region(direction, anchor, tokens)
        padded = {**trees.zeros(trees.pick(anchor, moving)), **direction}
        return trees.pick(whole(padded, anchor, tokens), direction)

    return product


def _find_region(whole: R, parts: Mapping[frozenset[str], R], moving: Sequence[str], asked: Params) -> R | None:
    return whole if len(asked) == len(moving) else parts.get(frozenset(asked))
