"""Bases for the sides of every matrix: Shampoo's factors, their eigenbases, and the moments that move along with them.

A tree of factors or bases names the matrices whose side has one. Along every other side a matrix keeps its own
coordinates. A matrix (m, n) may be cut into a x b blocks (m/a, n/b), each with factors and bases of its own; those of a
stack (k, m, n) are then (k, a, b, m/a, m/a) and (k, a, b, n/b, n/b). Moments keep the shape of the matrix.
"""

from collections.abc import Callable
from math import prod
from typing import Literal, NamedTuple, TypeAlias

import torch
from torch import Tensor

from gnflow import trees
from gnflow.objective import Params
from gnflow.optim.eigenbasis import advance_basis, find_basis

Multiply: TypeAlias = Callable[[Tensor, Tensor], Tensor]
Sides: TypeAlias = Literal["both", "shorter"]


class Part(NamedTuple):
    """The bases that are renewed now: of all bases, in order, those whose number is `number` modulo `period`."""

    number: int = 0
    period: int = 1

    def choose(self, before: int) -> "Chosen":
        """Return the bases to renew in a tensor of bases that has `before` bases ahead of it."""
        return Chosen(slice((self.number - before) % self.period, None, self.period))


ALL = Part()


class Chosen(NamedTuple):
    """Some matrices of a stack with any number of axes, counted along all of them."""

    which: slice

    @property
    def is_all(self) -> bool:
        """Whether nothing is left out."""
        return bool(self.which.step == 1)

    def take(self, x: Tensor) -> Tensor:
        """Return the chosen matrices of (..., m, n)."""
        return x if self.is_all else x.reshape(-1, *x.shape[-2:])[self.which]

    def put(self, x: Tensor, chosen: Tensor) -> Tensor:
        """Return a copy of x (..., m, n) with these matrices in the place of the chosen ones."""
        if self.is_all:
            return chosen
        result = x.reshape(-1, *x.shape[-2:]).clone()
        result[self.which] = chosen
        return result.reshape(x.shape)


def multiply_in_bfloat16(a: Tensor, b: Tensor) -> Tensor:
    """Return the product of both factors rounded to bfloat16, in the type of `a`."""
    return (a.bfloat16() @ b.bfloat16()).to(a.dtype)


def begin_factors(
    params: Params, largest: int, sides: Sides = "both", block: int | None = None
) -> tuple[Params, Params]:
    """Return zero factors of the left and of the right sides that are at most `largest` long.

    With `sides="shorter"` only the shorter side of a matrix has a factor, and the left one of a square. With `block` a
    side with a factor is cut into pieces as long as its largest divisor that is at most `block`.
    """
    left, right = {}, {}
    for name, w in params.items():
        if w.ndim < 2:
            continue
        *stack, m, n = w.shape
        on_left = m <= largest and (sides == "both" or m <= n)
        on_right = n <= largest and (sides == "both" or n < m)
        if block is not None:
            h, v = find_divisor(m, block) if on_left else m, find_divisor(n, block) if on_right else n
            stack, m, n = [*stack, m // max(h, 1), n // max(v, 1)], h, v
        if on_left:
            left[name] = w.new_zeros(*stack, m, m)
        if on_right:
            right[name] = w.new_zeros(*stack, n, n)
    return left, right


def find_divisor(size: int, most: int) -> int:
    """Return the largest divisor of `size` that is at most `most`."""
    return next((part for part in range(min(size, most), 0, -1) if size % part == 0), size)


def cut(x: Tensor, *bases: Tensor | None) -> Tensor:
    """Cut matrices (..., m, n) into the blocks (..., a, b, m/a, n/b) that have these bases. Without blocks return x."""
    basis = next((basis for basis in bases if basis is not None), x)
    if basis.ndim == x.ndim:
        return x
    (a, b), (m, n) = basis.shape[-4:-2], x.shape[-2:]
    return x.reshape(*x.shape[:-2], a, m // a, b, n // b).transpose(-3, -2)


def join(x: Tensor, shape: torch.Size) -> Tensor:
    """Undo `cut` of a tensor that had this shape."""
    return x if x.ndim == len(shape) else x.transpose(-3, -2).reshape(shape)


def begin_bases(factors: Params) -> Params:
    """Return the identity as a basis for each factor."""
    return trees.map_tensors(_make_identity, factors)


def turn_into(tree: Params, left: Params, right: Params, multiply: Multiply = torch.matmul) -> Params:
    """Return QL' X QR."""
    return {name: _turn(x, left.get(name), right.get(name), multiply) for name, x in tree.items()}


def turn_back(tree: Params, left: Params, right: Params, multiply: Multiply = torch.matmul) -> Params:
    """Return QL X QR'."""
    return turn_into(tree, trees.map_tensors(_transpose, left), trees.map_tensors(_transpose, right), multiply)


def count_if_due(updates: Tensor, frequency: int) -> int | None:
    """Return the number of calls before this one if the bases are to be renewed now, and None if not."""
    # The plan asks on the meta device, where there is no count, what a renewal costs.
    calls = 1 + frequency if updates.is_meta else int(updates)
    return None if calls == 0 or (calls - 1) % frequency else calls


def renew(
    first: Params,
    second: Params,
    bases: tuple[Params, Params],
    factors: tuple[Params, Params],
    from_nothing: bool,
    part: Part = ALL,
) -> tuple[Params, Params, tuple[Params, Params]]:
    """Renew the bases of both sides, or a part of them, and return (first, second, bases).

    The first moment is turned into the new bases, and the second one is permuted along. A matrix without a first moment
    is left out of `first`.
    """
    first, second = dict(first), dict(second)
    new_bases = dict(bases[0]), dict(bases[1])
    seen = 0
    for side in (0, 1):
        for name, factor in factors[side].items():
            basis, chosen = bases[side][name], part.choose(seen)
            seen += prod(factor.shape[:-2])
            old, order = chosen.take(basis), None
            if not len(old):
                continue
            if from_nothing:
                new = find_basis(chosen.take(factor))
            else:
                new, order = advance_basis(chosen.take(factor), old)
            if name in first:
                blocks = cut(first[name], basis)
                moment = chosen.take(blocks)
                moment = _carry(moment, old, new) if side == 0 else _carry(moment.mT, old, new).mT.contiguous()
                first[name] = join(chosen.put(blocks, moment), first[name].shape)
            if order is not None:
                blocks = cut(second[name], basis)
                second[name] = join(chosen.put(blocks, _permute(chosen.take(blocks), order, side)), second[name].shape)
            new_bases[side][name] = chosen.put(basis, new)
    return first, second, new_bases


def _permute(second: Tensor, order: Tensor, side: int) -> Tensor:
    axis, index = (-2, order.unsqueeze(-1)) if side == 0 else (-1, order.unsqueeze(-2))
    return second.gather(axis, index.expand_as(second))


def _carry(moment: Tensor, old: Tensor, new: Tensor) -> Tensor:
    """Return new' old M, for M (..., m, n), in the order that takes fewer products."""
    m, n = moment.shape[-2:]
    return new.mT @ (old @ moment) if n < m else (new.mT @ old) @ moment


def _make_identity(factor: Tensor) -> Tensor:
    if not factor.numel():
        return torch.empty_like(factor)
    eye = torch.eye(factor.shape[-1], dtype=factor.dtype, device=factor.device)
    return eye.expand_as(factor).clone()


def _turn(x: Tensor, left: Tensor | None, right: Tensor | None, multiply: Multiply) -> Tensor:
    turned = cut(x, left, right)
    turned = turned if left is None else multiply(left.mT, turned)
    return join(turned if right is None else multiply(turned, right), x.shape)


def _transpose(basis: Tensor) -> Tensor:
    return basis.mT
