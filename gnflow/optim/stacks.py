"""Tensors of one shape under one rule, kept as one stack: the graph of an update does not grow with depth."""

from collections import defaultdict
from collections.abc import Mapping
from typing import NamedTuple

import torch

from gnflow.objective import Params


class Stacks(NamedTuple):
    """Stack -> the parameters in it, in order. A stack of k tensors of shape (m, n) has shape (k, m, n)."""

    members: Mapping[str, tuple[str, ...]]

    @classmethod
    def by_rule(cls, routes: Mapping[str, str], shapes: Mapping[str, tuple[int, ...]]) -> "Stacks":
        """One stack for each rule and shape; `rule_of` undoes the naming."""
        members: dict[str, list[str]] = defaultdict(list)
        for name, rule in routes.items():
            members[f"{rule}:{'x'.join(str(size) for size in shapes[name])}"].append(name)
        return cls({stack: tuple(names) for stack, names in members.items()})

    def rules(self) -> dict[str, str]:
        """Stack -> its rule."""
        return {stack: stack.rsplit(":", 1)[0] for stack in self.members}

    def stack(self, tree: Params) -> Params:
        """By name -> by stack."""
        return {stack: torch.stack([tree[name] for name in names]) for stack, names in self.members.items()}

    def unstack(self, stacked: Params) -> Params:
        """By stack -> by name, as views."""
        return {
            name: part
            for stack, names in self.members.items()
            for name, part in zip(names, stacked[stack].unbind(), strict=True)
        }
