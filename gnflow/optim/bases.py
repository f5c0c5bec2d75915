"""Bases for both sides of every matrix: Shampoo's factors, their eigenbases, and the moments that move along with them.

A tree of factors or bases names the matrices whose side has one. Along every other side a matrix keeps its own
coordinates.
"""

import torch
from torch import Tensor

from gnflow import trees
from gnflow.objective import Params
from gnflow.optim.eigenbasis import advance_basis, find_basis


def begin_factors(params: Params, largest: int) -> tuple[Params, Params]:
    """Return zero factors of the left and of the right sides that are at most `largest` long."""
    matrices = {name: value for name, value in params.items() if value.ndim > 1}
    left = {name: _make_square(w, -2) for name, w in matrices.items() if w.shape[-2] <= largest}
    right = {name: _make_square(w, -1) for name, w in matrices.items() if w.shape[-1] <= largest}
    return left, right


def begin_bases(factors: Params) -> Params:
    """Return the identity as a basis for each factor."""
    return trees.map_tensors(_make_identity, factors)


def turn_into(tree: Params, left: Params, right: Params) -> Params:
    """Return QL' X QR."""
    return {name: _turn(x, left.get(name), right.get(name)) for name, x in tree.items()}


def turn_back(tree: Params, left: Params, right: Params) -> Params:
    """Return QL X QR'."""
    return {name: _turn(x, _transpose(left.get(name)), _transpose(right.get(name))) for name, x in tree.items()}


def count_if_due(updates: Tensor, frequency: int) -> int | None:
    """Return the number of calls before this one if the bases are to be renewed now, and None if not."""
    # The plan asks on the meta device, where there is no count, what a renewal costs.
    calls = 1 + frequency if updates.is_meta else int(updates)
    return None if calls == 0 or (calls - 1) % frequency else calls


def renew(
    first: Params, second: Params, bases: tuple[Params, Params], factors: tuple[Params, Params], from_nothing: bool
) -> tuple[Params, Params, tuple[Params, Params]]:
    """Renew the bases of both sides and return (first, second, bases).

    The first moment is turned into the new bases, and the second one is permuted along. A matrix without a first moment
    is left out of `first`.
    """
    first, second = dict(first), dict(second)
    new_bases = dict(bases[0]), dict(bases[1])
    for side in (0, 1):
        for name, factor in factors[side].items():
            old, order = bases[side][name], None
            if from_nothing:
                new = find_basis(factor)
            else:
                new, order = advance_basis(factor, old)
            if name in first:
                first[name] = (
                    _carry(first[name], old, new) if side == 0 else _carry(first[name].mT, old, new).mT.contiguous()
                )
            if order is not None:
                second[name] = _permute(second[name], order, side)
            new_bases[side][name] = new
    return first, second, new_bases


def _permute(second: Tensor, order: Tensor, side: int) -> Tensor:
    axis, index = (-2, order.unsqueeze(-1)) if side == 0 else (-1, order.unsqueeze(-2))
    return second.gather(axis, index.expand_as(second))


def _carry(moment: Tensor, old: Tensor, new: Tensor) -> Tensor:
    """Return new' old M, for M (..., m, n), in the order that takes fewer products."""
    m, n = moment.shape[-2:]
    return new.mT @ (old @ moment) if n < m else (new.mT @ old) @ moment


def _make_square(weight: Tensor, side: int) -> Tensor:
    size = weight.shape[side]
    return weight.new_zeros(*weight.shape[:-2], size, size)


def _make_identity(factor: Tensor) -> Tensor:
    if not factor.numel():
        return torch.empty_like(factor)
    eye = torch.eye(factor.shape[-1], dtype=factor.dtype, device=factor.device)
    return eye.expand_as(factor).clone()


def _turn(x: Tensor, left: Tensor | None, right: Tensor | None) -> Tensor:
    x = x if left is None else left.mT @ x
    return x if right is None else x @ right


def _transpose(basis: Tensor | None) -> Tensor | None:
    return None if basis is None else basis.mT
