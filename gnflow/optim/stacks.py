"""Tensors under one rule kept as one: the graph of an update does not grow with depth, and products are batched.

Matrices of one shape (m, n) become a stack (k, m, n), vectors of any length one long vector.
"""

from collections import defaultdict
from collections.abc import Mapping
from math import prod
from typing import NamedTuple

import torch

from gnflow.objective import Params


class Stacks(NamedTuple):
    """Stack -> the parameters in it, in order; and the shape of every parameter."""

    members: Mapping[str, tuple[str, ...]]
    shapes: Mapping[str, tuple[int, ...]]

    @classmethod
    def by_rule(cls, routes: Mapping[str, str], shapes: Mapping[str, tuple[int, ...]]) -> "Stacks":
        """One stack for each rule and shape of matrix; `rules` undoes the naming."""
        members: dict[str, list[str]] = defaultdict(list)
        for name, rule in routes.items():
            form = "x".join(str(size) for size in shapes[name]) if len(shapes[name]) > 1 else "vectors"
            members[f"{rule}:{form}"].append(name)
        named = {name: tuple(shapes[name]) for name in routes}
        return cls({stack: tuple(names) for stack, names in members.items()}, named)

    def rules(self) -> dict[str, str]:
        """Stack -> its rule."""
        return {stack: stack.rsplit(":", 1)[0] for stack in self.members}

    def sizes(self) -> dict[str, int]:
        """Stack -> how many numbers. Where these agree, an update runs the same code."""
        return {stack: sum(prod(self.shapes[name]) for name in names) for stack, names in self.members.items()}

    def stack(self, tree: Params) -> Params:
        """By name -> by stack."""
        return {
            stack: torch.stack([tree[name] for name in names])
            if len(self.shapes[names[0]]) > 1
            else torch.cat([tree[name].flatten() for name in names])
            for stack, names in self.members.items()
        }

    def unstack(self, stacked: Params) -> Params:
        """By stack -> by name, as views."""
        return {
            name: part.view(self.shapes[name])
            for stack, names in self.members.items()
            for name, part in zip(names, self._parts(stacked[stack], names), strict=True)
        }

    def _parts(self, joined: torch.Tensor, names: tuple[str, ...]) -> tuple[torch.Tensor, ...]:
        if joined.ndim > 1:
            return joined.unbind()
        return torch.split(joined, [prod(self.shapes[name]) for name in names])
