"""Layerwise: which blocks of parameters are worth a `curved` region of their own, and how a call finds its region."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple, TypeAlias, TypeVar

from torch import Tensor

from gnflow import trees
from gnflow.compiler.cost import region_cost
from gnflow.models.model import Model
from gnflow.objective import Objective, Params, Scalar, Tokens
from gnflow.optim.frozen import Frozen
from gnflow.optim.gauss_newton import GaussNewton
from gnflow.optim.protocol import Cost, Optimizer

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


def layerwise(optimizer: Optimizer) -> bool:
    """Whether it solves block by block."""
    method = optimizer.inner if isinstance(optimizer, Frozen) else optimizer
    return isinstance(method, GaussNewton) and len(method.blocks) > 1


def block_regions(network: Model, problem: Objective, params: Params, tokens: Tensor) -> dict[str, BlockRegion]:
    """For each block of the model; `params` and `tokens` are on the meta device."""
    whole = region_cost(problem.curved, trees.pick(params, network.moving), params, tokens).flops

    def found(block: str, names: tuple[str, ...]) -> BlockRegion:
        share = region_cost(problem.curved, trees.pick(params, names), params, tokens).flops / whole
        return BlockRegion(names, own(block) if share <= LARGEST_SHARE else "curved", share)

    return {block: found(block, names) for block, names in network.moving_blocks.items()}


def own(block: str) -> str:
    """The name of a block's own region, as Gauss-Newton counts its calls."""
    return f"curved.{block}"


def as_product(region: str) -> str:
    """Where a block is solved for with `region`, the region of its curvature."""
    return region.replace("curved", "product", 1)


def redirected(cost: Cost, blocks: Mapping[str, BlockRegion]) -> Cost:
    """The cost with the calls of blocks without a region of their own counted as calls of `curved` or `product`."""
    renamed = {own(block): found.region for block, found in blocks.items()}
    renamed |= {as_product(mine): as_product(region) for mine, region in renamed.items()}
    calls: dict[str, float] = {}
    for name, n in cost.calls.items():
        region = renamed.get(name, name)
        calls[region] = calls.get(region, 0) + n
    return replace(cost, calls=calls)


def dispatched(whole: Curved, parts: Mapping[frozenset[str], Curved], moving: Sequence[str]) -> Curved:
    """`curved` by the parameters it is asked about: those of a region among `parts`, others that move by `whole`."""

    def curved(params: Params, anchor: Params, tokens: Tokens) -> tuple[Params, Scalar]:
        if region := _region(whole, parts, moving, params):
            return region(params, anchor, tokens)
        # Clones, since params that alias the anchor would compile `whole` a second time.
        gradient, value = whole({**trees.clone(trees.pick(anchor, moving)), **params}, anchor, tokens)
        return trees.pick(gradient, params), value

    return curved


def dispatched_product(whole: Product, parts: Mapping[frozenset[str], Product], moving: Sequence[str]) -> Product:
    """The same for `product`: of parameters without a region of their own, by `whole`, along zeros in all others."""

    def product(direction: Params, anchor: Params, tokens: Tokens) -> Params:
        if region := _region(whole, parts, moving, direction):
            return region(direction, anchor, tokens)
        padded = {**trees.zeros(trees.pick(anchor, moving)), **direction}
        return trees.pick(whole(padded, anchor, tokens), direction)

    return product


def _region(whole: R, parts: Mapping[frozenset[str], R], moving: Sequence[str], asked: Params) -> R | None:
    return whole if len(asked) == len(moving) else parts.get(frozenset(asked))
