"""Regions of layerwise Gauss-Newton: `curved` and `product` of each block, which say what one block costs."""

from collections.abc import Callable, Mapping
from typing import NamedTuple, TypeVar

from torch import Tensor

from gnflow import trees
from gnflow.compiler.metering import Meter
from gnflow.models.model import Model
from gnflow.objective import Objective, Params
from gnflow.optim.protocol import Jit, compile_regions, jit_for_block, name_in_block

R = TypeVar("R")


class BlockRegion(NamedTuple):
    """The region that a block is solved in, and its cost relative to that of all parameters."""

    names: tuple[str, ...]
    region: str
    share: float


def find_blocks(network: Model, kind: str) -> dict[str, tuple[str, ...]]:
    """Return the names of the weights that each solve moves, by block. Later blocks overwrite earlier ones.

    With kind `full` there is one block. With kind `prefix` a block also has the weights of all layers whose number
    begins with its own, as 10 with 1. What belongs to the last block without being a layer's, such as the last norm,
    stays with it alone.

    Code: github.com/natalieabreu/full-gauss-newton layerwise_utils.py:384, 393 @ 0c14e7e
    """
    blocks = {"all": network.moving} if kind == "full" else network.moving_blocks
    if kind != "prefix":
        return blocks
    return {
        block: tuple(
            name
            for other, names in blocks.items()
            if other.startswith(block)
            for name in names
            if other == block or f"{other}." in name
        )
        for block in blocks
    }


def price_blocks(
    network: Model, blocks: Mapping[str, tuple[str, ...]], problem: Objective, params: Params, tokens: Tensor,
    meter: Meter,
) -> dict[str, BlockRegion]:  # fmt: skip
    """Price the region of each block. `params` and `tokens` are on the meta device."""
    meter.price("curved", problem.curved, trees.pick(params, network.moving), params, tokens)
    whole, found = meter.regions["curved"].flops, {}
    for block, names in blocks.items():
        region = name_in_block("curved", block)
        meter.price(region, problem.curved, trees.pick(params, names), params, tokens)
        found[block] = BlockRegion(names, region, meter.regions[region].flops / whole)
    return found


def assign_blocks(blocks: Mapping[str, BlockRegion], processes: int) -> dict[str, int]:
    """Assign each block to a process."""
    return assign_evenly({name: block.share for name, block in blocks.items()}, processes)


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


def divide_by_block(problem: Objective, blocks: Mapping[str, tuple[str, ...]], jit: Jit) -> Objective:
    """Pass the regions of an objective through `jit`, and once more for each block: block -> its parameters."""
    regions = compile_regions(problem, jit)
    curved = {frozenset(names): jit_for_block(jit, block)("curved", problem.curved) for block, names in blocks.items()}
    product = {
        frozenset(names): jit_for_block(jit, block)("product", problem.product) for block, names in blocks.items()
    }
    return regions._replace(curved=_dispatch(regions.curved, curved), product=_dispatch(regions.product, product))


def _dispatch(whole: Callable[..., R], parts: Mapping[frozenset[str], Callable[..., R]]) -> Callable[..., R]:
    """Make a function that uses the region in `parts` for exactly the parameters of a block, or else `whole`."""

    def call(asked: Params, anchor: Params, tokens: Tensor) -> R:
        return parts.get(frozenset(asked), whole)(asked, anchor, tokens)

    return call
