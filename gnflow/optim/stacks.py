"""Stacks: tensors under one rule joined into one, so that products are batched and graphs do not grow with depth.

Matrices of one shape (m, n) become a stack (k, m, n); vectors of any length become one long vector. A tensor with three
axes is a stack of matrices already, and one with more, such as that of a convolution, is the matrix (out, rest). A
matrix that its model stores as (in, out) is joined as (out, in), so that rows stand for outputs in every method.
"""

from collections import defaultdict
from collections.abc import Collection, Mapping
from math import prod
from typing import NamedTuple

import torch
from torch import Tensor

from gnflow.objective import Params

ALIGNMENT = 64
"""The bytes that torch aligns a tensor to. On a GPU it is a multiple of this."""


class Stacks(NamedTuple):
    """The parameters that are joined into each tensor. Names of stacks appear in checkpoints and nowhere else."""

    members: Mapping[str, tuple[str, ...]]
    """Stack -> the parameters in it, in order."""
    shapes: Mapping[str, tuple[int, ...]]
    """Parameter -> its shape."""
    rules: Mapping[str, str]
    """Stack -> the rule that owns all of its parameters."""
    apart: frozenset[str] = frozenset()
    """Stacks that hold one parameter in its own shape, for a rule that must see every tensor by itself."""
    transposed: frozenset[str] = frozenset()
    """Parameters that are joined as their transposes."""

    @classmethod
    def by_rule(
        cls,
        routes: Mapping[str, str],
        shapes: Mapping[str, tuple[int, ...]],
        each: Collection[str] = (),
        transposed: Collection[str] = (),
    ) -> "Stacks":
        """Make one stack for each rule and shape of matrix. `routes` has the rule of every parameter.

        Each parameter under a rule in `each` gets a stack of its own. Those that are `transposed` are joined as such.
        """
        members: dict[str, list[str]] = defaultdict(list)
        rules: dict[str, str] = {}
        for name, rule in routes.items():
            shape = shapes[name][::-1] if name in transposed else shapes[name]
            form = "x".join(str(size) for size in find_stacked_shape(shape)[1:]) or "vectors"
            stack = f"{rule}:{name if rule in each else form}"
            members[stack].append(name)
            rules[stack] = rule
        named = {name: tuple(shapes[name]) for name in routes}
        apart = frozenset(stack for stack, rule in rules.items() if rule in each)
        own = frozenset(name for name in routes if name in transposed)
        return cls({stack: tuple(names) for stack, names in members.items()}, named, rules, apart, own)

    def pick(self, stacks: Collection[str]) -> "Stacks":
        """Return a part of the stacks."""
        members = {stack: self.members[stack] for stack in stacks}
        rules = {stack: self.rules[stack] for stack in stacks}
        return self._replace(members=members, rules=rules, apart=self.apart & frozenset(stacks))

    def count_numbers(self) -> dict[str, int]:
        """Return how many numbers each stack holds. Stacks with equal sizes can share a compiled update."""
        return {stack: sum(prod(self.shapes[name]) for name in names) for stack, names in self.members.items()}

    def stack(self, tree: Params) -> Params:
        """Turn a tree by name into a tree by stack, with storage of its own."""
        return {
            stack: self._turn(names[0], tree[names[0]]).clone(memory_format=torch.contiguous_format)
            if stack in self.apart
            else torch.cat([self._turn(n, tree[n]).reshape(find_stacked_shape(self._find_shape(n))) for n in names])
            for stack, names in self.members.items()
        }

    def rejoin(self, tree: Params) -> Params:
        """Do the same as `stack`, but without a copy of parameters that lie side by side, as those of `separate` do.

        It is not for tensors that take a gradient: only the first of those side by side would get it.
        """
        found = {stack: self._find_joined(stack, tree) for stack in self.members}
        missing = self.pick([stack for stack, tensor in found.items() if tensor is None]).stack(tree)
        return {stack: missing[stack] if tensor is None else tensor for stack, tensor in found.items()}

    def unstack(self, stacked: Params) -> Params:
        """Turn a tree by stack into a tree by name, as views."""
        return {
            name: self._turn(name, part.view(self._find_shape(name)))
            for stack, names in self.members.items()
            for name, part in zip(names, self.split_members(stack, stacked[stack]), strict=True)
        }

    def separate(self, stacked: Params) -> Params:
        """Do the same as `unstack`, but copy views that are not in rows, or not aligned as tensors of their own are.

        Kernels may round by the alignment, so weights that were read from a file would give other bits.
        """
        return {
            name: view.clone(memory_format=torch.contiguous_format)
            if name in self.transposed or view.storage_offset() * view.element_size() % ALIGNMENT
            else view
            for name, view in self.unstack(stacked).items()
        }

    def flatten(self, tree: Params) -> Tensor:
        """Join all stacks of a tree by name into one vector."""
        return torch.cat([self._turn(n, tree[n]).flatten() for names in self.members.values() for n in names])

    def unflatten(self, vector: Tensor) -> Params:
        """Undo `flatten`: return views of the vector by name."""
        names = [name for stack in self.members.values() for name in stack]
        parts = torch.split(vector, [prod(self.shapes[name]) for name in names])
        return {n: self._turn(n, part.view(self._find_shape(n))) for n, part in zip(names, parts, strict=True)}

    def split_members(self, stack: str, tensor: Tensor) -> tuple[Tensor, ...]:
        """Split a tensor that has the first axis of a stack into views, one for each member."""
        if stack in self.apart:
            return (tensor,)
        return torch.split(tensor, [find_stacked_shape(self.shapes[name])[0] for name in self.members[stack]])

    def _find_joined(self, stack: str, tree: Params) -> Tensor | None:
        """Return a stack as a view of the memory of its members, or None if they do not lie there one after another."""
        parts = [self._turn(name, tree[name]) for name in self.members[stack]]
        first, end = parts[0], parts[0].storage_offset()
        for part in parts:
            is_next = part.storage_offset() == end and part.is_contiguous() and part.dtype == first.dtype
            if not is_next or part.untyped_storage()._cdata != first.untyped_storage()._cdata:
                return None
            end += part.numel()
        shapes = [find_stacked_shape(part.shape) for part in parts]
        shape = first.shape if stack in self.apart else (sum(shape[0] for shape in shapes), *shapes[0][1:])
        return first.as_strided((end - first.storage_offset(),), (1,)).view(shape)

    def _find_shape(self, name: str) -> tuple[int, ...]:
        """Return the shape of a parameter before it is joined."""
        return self.shapes[name][::-1] if name in self.transposed else self.shapes[name]

    def _turn(self, name: str, value: Tensor) -> Tensor:
        """Transpose a parameter, or what belongs to it, if it is joined as its transpose."""
        return value.mT if name in self.transposed else value


def find_stacked_shape(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Return a parameter's shape in its stack: (k, m, n) for a matrix or stack, (k,) for a vector."""
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
