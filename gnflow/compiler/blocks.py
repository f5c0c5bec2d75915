"""Layerwise: which blocks of parameters are worth a `curved` region of their own, and how a call finds its region."""

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
"""Of the FLOPs of `curved`: a region that costs more is not worth its compilation."""


class BlockRegion(NamedTuple):
    """Where a block is solved for, and what a region of its own costs against that of all parameters."""

    names: tuple[str, ...]
    region: str
    share: float

    @property
    def own(self) -> bool:
        """Whether it has a region of its own."""
        return self.share <= LARGEST_SHARE


def price_blocks(
    network: Model, problem: Objective, params: Params, tokens: Tensor, meter: Meter
) -> dict[str, BlockRegion]:
    """For each block of the model; `params` and `tokens` are on the meta device."""
    meter.priced("curved", problem.curved, trees.pick(params, network.moving), params, tokens)
    whole, found = meter.regions["curved"].flops, {}
    for block, names in network.moving_blocks.items():
        region = name_in_block("curved", block)
        meter.priced(region, problem.curved, trees.pick(params, names), params, tokens)
        share = meter.regions[region].flops / whole
        found[block] = BlockRegion(names, region if share <= LARGEST_SHARE else "curved", share)
    return found


def divide_by_block(problem: Objective, own: Mapping[str, tuple[str, ...]], network: Model, jit: Jit) -> Objective:
    """The objective, its regions passed through `jit`; each block among `own` has regions to itself."""
    regions = compile_regions(problem, jit)
    curved = {frozenset(names): jit_for_block(jit, block)("curved", problem.curved) for block, names in own.items()}
    product = {frozenset(names): jit_for_block(jit, block)("product", problem.product) for block, names in own.items()}
    return regions._replace(
        curved=dispatch(regions.curved, curved, network.moving),
        product=dispatch_product(regions.product, product, network.moving),
    )


def dispatch(whole: Curved, parts: Mapping[frozenset[str], Curved], moving: Sequence[str]) -> Curved:
    """`curved` by the parameters it is asked about: those of a region among `parts`, others that move by `whole`."""

    def curved(params: Params, anchor: Params, tokens: Tokens) -> tuple[Params, Scalar]:
        if region := _find_region(whole, parts, moving, params):
            return region(params, anchor, tokens)
        # Clones, since params that alias the anchor would compile `whole` a second time.
        gradient, value = whole({**trees.clone(trees.pick(anchor, moving)), **params}, anchor, tokens)
        return trees.pick(gradient, params), value

    return curved


def dispatch_product(whole: Product, parts: Mapping[frozenset[str], Product], moving: Sequence[str]) -> Product:
    """The same for `product`: of parameters without a region of their own, by `whole`, along zeros in all others."""

    def product(direction: Params, anchor: Params, tokens: Tokens) -> Params:
        if region := _find_region(whole, parts, moving, direction):
            return region(direction, anchor, tokens)
        padded = {**trees.zeros(trees.pick(anchor, moving)), **direction}
        return trees.pick(whole(padded, anchor, tokens), direction)

    return product


def _find_region(whole: R, parts: Mapping[frozenset[str], R], moving: Sequence[str], asked: Params) -> R | None:
    return whole if len(asked) == len(moving) else parts.get(frozenset(asked))
