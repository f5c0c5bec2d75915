"""Tensors under one rule kept as one: the graph of an update does not grow with depth, and products are batched.

Matrices of one shape (m, n) become a stack (k, m, n), vectors of any length one long vector. A tensor with three axes
is a stack of matrices already; one with more, as of a convolution, is the matrix (out, rest).
"""

from collections import defaultdict
from collections.abc import Collection, Mapping
from math import prod
from typing import NamedTuple

import torch
from torch import Tensor

from gnflow.objective import Params


class Stacks(NamedTuple):
    """Which parameters are kept as one tensor. The name of a stack is a part of checkpoints, and of nothing else."""

    members: Mapping[str, tuple[str, ...]]
    """Stack -> the parameters in it, in order."""
    shapes: Mapping[str, tuple[int, ...]]
    """Parameter -> its shape."""
    rules: Mapping[str, str]
    """Stack -> the rule that all of its parameters are under."""
    apart: frozenset[str] = frozenset()
    """Stacks of one parameter in its own shape, for a rule that asks to see every tensor by itself."""

    @classmethod
    def by_rule(
        cls, routes: Mapping[str, str], shapes: Mapping[str, tuple[int, ...]], each: Collection[str] = ()
    ) -> "Stacks":
        """One stack for each rule and shape of matrix; `routes` has the rule of every parameter.

        The parameters under the rules in `each` stay by themselves.
        """
        members: dict[str, list[str]] = defaultdict(list)
        rules: dict[str, str] = {}
        for name, rule in routes.items():
            form = "x".join(str(size) for size in stacked_shape(shapes[name])[1:]) or "vectors"
            stack = f"{rule}:{name if rule in each else form}"
            members[stack].append(name)
            rules[stack] = rule
        named = {name: tuple(shapes[name]) for name in routes}
        apart = frozenset(stack for stack, rule in rules.items() if rule in each)
        return cls({stack: tuple(names) for stack, names in members.items()}, named, rules, apart)

    def only(self, stacks: Collection[str]) -> "Stacks":
        """Some of the stacks."""
        members = {stack: self.members[stack] for stack in stacks}
        rules = {stack: self.rules[stack] for stack in stacks}
        return self._replace(members=members, rules=rules, apart=self.apart & frozenset(stacks))

    def sizes(self) -> dict[str, int]:
        """Stack -> how many numbers. Where these agree, an update runs the same code."""
        return {stack: sum(prod(self.shapes[name]) for name in names) for stack, names in self.members.items()}

    def stack(self, tree: Params) -> Params:
        """By name -> by stack, with storage of its own."""
        return {
            stack: tree[names[0]].clone()
            if stack in self.apart
            else torch.cat([tree[name].reshape(stacked_shape(self.shapes[name])) for name in names])
            for stack, names in self.members.items()
        }

    def unstack(self, stacked: Params) -> Params:
        """By stack -> by name, as views."""
        return {
            name: part.view(self.shapes[name])
            for stack, names in self.members.items()
            for name, part in zip(names, self.parts(stack, stacked[stack]), strict=True)
        }

    def parts(self, stack: str, tensor: Tensor) -> tuple[Tensor, ...]:
        """Of a tensor that has the first axis of a stack: what belongs to each member, as views."""
        if stack in self.apart:
            return (tensor,)
        return torch.split(tensor, [stacked_shape(self.shapes[name])[0] for name in self.members[stack]])


def stacked_shape(shape: tuple[int, ...]) -> tuple[int, ...]:
    """A parameter's shape in its stack: (k, m, n) of a matrix or stack, (k,) of a vector."""
    match shape:
        case () | (_,):
            return (prod(shape),)
        case (m, n):
            return 1, m, n
        case (_, _, _):
            return tuple(shape)
        case (m, *rest):
            return 1, m, prod(rest)
    raise AssertionError(shape)
