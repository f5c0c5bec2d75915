"""What a model is to the rest of gnflow: a table of weights and a pure function to logits.

Torch is not imported for it, so that a plug-in need not.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

from gnflow.models.targets import Split, split
from gnflow.objective import Params

if TYPE_CHECKING:
    import torch
    from torch import Tensor


class Weight(NamedTuple):
    """One declared parameter: normal with deviation `std`, or filled with `value` when `std` is None."""

    shape: tuple[int, ...]
    std: float | None = None
    value: float = 0.0


class Stage(NamedTuple):
    """A part of a model: a pure function, and the names of the weights that it reads."""

    reads: frozenset[str]
    run: Callable[[Params, Tensor], Tensor]


def join(stages: Sequence[Stage]) -> Stage:
    """One after another."""

    def run(params: Params, x: Tensor) -> Tensor:
        for stage in stages:
            x = stage.run(params, x)
        return x

    return Stage(frozenset().union(*(stage.reads for stage in stages)), run)


class Model(NamedTuple):
    """Declared weights, the blocks they belong to in order of depth, and logits as a pure function of both inputs."""

    weights: Mapping[str, Weight]
    blocks: Mapping[str, tuple[str, ...]]
    """Block -> names of its weights; `embedding` first, heads last."""
    hidden: frozenset[str]
    """Matrices inside the blocks, or else from features to features: what matrix optimizers are meant for."""
    layers: tuple[Stage, ...]
    """(params, inputs (rows, time), or (rows, time, channels)) -> (rows, time, width), and from there block by block"""
    head: Stage
    """(params, (..., width)) -> logits (..., vocabulary)"""
    split: Split = split
    """A micro-batch -> inputs, and what the logits are judged by."""
    frozen: frozenset[str] = frozenset()
    """Weights that take no update."""

    def logits(self, params: Params, inputs: Tensor) -> Tensor:
        """(params, inputs) -> (rows, time, vocabulary)"""
        return self.head.run(params, self.features.run(params, inputs))

    @property
    def features(self) -> Stage:
        """All that is below the head."""
        return join(self.layers)

    @property
    def moving(self) -> tuple[str, ...]:
        """The other weights, in order."""
        return tuple(name for name in self.weights if name not in self.frozen)

    @property
    def moving_blocks(self) -> dict[str, tuple[str, ...]]:
        """The blocks without what is frozen; those without anything else are left out."""
        parts = {block: tuple(n for n in names if n not in self.frozen) for block, names in self.blocks.items()}
        return {block: names for block, names in parts.items() if names}

    def init(self, seed: int, device: torch.device | str = "cpu") -> Params:
        """Initial weights, each a function of (seed, name) alone; on `meta` only shapes."""
        from gnflow.models.initial import draw

        return {name: draw(weight, seed, name, device) for name, weight in self.weights.items()}
