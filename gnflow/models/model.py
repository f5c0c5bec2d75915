"""The form that a model has for the rest of gnflow: a table of weights and a pure function to logits.

This module does not import torch, so that a plug-in need not import it either.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping
from typing import TYPE_CHECKING, NamedTuple

from gnflow.models.targets import Split, split
from gnflow.objective import Params

if TYPE_CHECKING:
    import torch
    from torch import Tensor


class Weight(NamedTuple):
    """One declared parameter: normal with deviation `std`, or filled with `value` if `std` is None."""

    shape: tuple[int, ...]
    std: float | None = None
    value: float = 0.0


class Stage(NamedTuple):
    """A part of a model: a pure function, and the names of the weights that it reads.

    Stages that have one function are compiled once: give the blocks of a model one function and a prefix each.
    """

    reads: frozenset[str]
    function: Callable[[Params, Tensor], Tensor]
    """(weights, x) -> x. It knows the weights by their names without the prefix."""
    prefix: str = ""
    """The beginning that the names of all its weights share, such as `blocks.3.`."""
    linears: frozenset[str] = frozenset()
    """The weights of its linear maps of tokens, (rows, time, in) -> (rows, time, out), by the names that its function
    uses. A function that has any takes a third argument `linear` (`models/linear.py`) and applies them with it."""

    def list_names(self, among: Container[str]) -> list[str]:
        """List the weights that the stage reads and that are `among` these, by the names that its function uses."""
        return [name.removeprefix(self.prefix) for name in sorted(self.reads) if name in among]

    def pick(self, params: Mapping[str, Tensor]) -> Params:
        """Return the parameters that the stage reads and `params` has, by the names that its function uses."""
        return {name: params[self.prefix + name] for name in self.list_names(params)}

    def run(self, params: Params, x: Tensor) -> Tensor:
        """Apply the function to its part of all parameters."""
        return self.function(self.pick(params), x)


class Model(NamedTuple):
    """Declared weights, the blocks that they belong to in order of depth, and the logits as a pure function."""

    weights: Mapping[str, Weight]
    blocks: Mapping[str, tuple[str, ...]]
    """Block -> names of its weights; `embedding` comes first, heads come last."""
    hidden: frozenset[str]
    """The matrices that map features to features, such as those inside blocks. Matrix optimizers are meant for them."""
    layers: tuple[Stage, ...]
    """Stages below the head. The first maps inputs (rows, time) or (rows, time, channels) to features (rows, time,
    width); each further one maps features to features."""
    head: Stage
    """Maps features (..., width) to logits (..., vocabulary)."""
    split: Split = split
    """micro-batch -> (inputs, targets)."""
    frozen: frozenset[str] = frozenset()
    """Weights that take no update."""
    transposed: frozenset[str] = frozenset()
    """Matrices that are stored as (in, out). Optimizers get them, like all others, as (out, in)."""

    def compute_logits(self, params: Params, inputs: Tensor) -> Tensor:
        """Return the logits (rows, time, vocabulary) of `inputs`."""
        x = inputs
        for stage in (*self.layers, self.head):
            x = stage.run(params, x)
        return x

    @property
    def linears(self) -> frozenset[str]:
        """The weights of linear maps of tokens that have no other use."""
        stages = (*self.layers, self.head)
        named = {stage.prefix + name for stage in stages for name in stage.linears}
        return frozenset(name for name in named if sum(name in stage.reads for stage in stages) == 1)

    @property
    def moving(self) -> tuple[str, ...]:
        """The weights that are not frozen, in order."""
        return tuple(name for name in self.weights if name not in self.frozen)

    @property
    def moving_blocks(self) -> dict[str, tuple[str, ...]]:
        """The blocks without their frozen weights. Blocks that are frozen as a whole are left out."""
        parts = {block: tuple(n for n in names if n not in self.frozen) for block, names in self.blocks.items()}
        return {block: names for block, names in parts.items() if names}

    def init(self, seed: int, device: torch.device | str = "cpu") -> Params:
        """Draw initial weights, each a function of (seed, name) alone; on the device `meta` they have shapes alone."""
        from gnflow.models.initial import draw

        return {name: draw(weight, seed, name, device) for name, weight in self.weights.items()}
