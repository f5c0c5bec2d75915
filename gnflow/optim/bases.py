"""Both sides of every matrix in a basis of its own: Shampoo's factors, their bases, and moments that follow them.

A tree of factors or bases names the matrices whose side has one; every other side keeps its own coordinates.
"""

import torch
from torch import Tensor

from gnflow import trees
from gnflow.objective import Params
from gnflow.optim.eigenbasis import first_basis, next_basis


def zero_factors(params: Params, largest: int) -> tuple[Params, Params]:
    """Factors of the left and of the right sides that are at most so long, with nothing in them."""
    matrices = {name: value for name, value in params.items() if value.ndim > 1}
    left = {name: _square(w, -2) for name, w in matrices.items() if w.shape[-2] <= largest}
    right = {name: _square(w, -1) for name, w in matrices.items() if w.shape[-1] <= largest}
    return left, right


def identities(factors: Params) -> Params:
    """A basis for each factor: its own coordinates."""
    return trees.mapped(_identity, factors)


def into(tree: Params, left: Params, right: Params) -> Params:
    """QL' X QR"""
    return {name: _turn(x, left.get(name), right.get(name)) for name, x in tree.items()}


def back(tree: Params, left: Params, right: Params) -> Params:
    """QL X QR'"""
    return {name: _turn(x, _transposed(left.get(name)), _transposed(right.get(name))) for name, x in tree.items()}


def calls_when_due(updates: Tensor, frequency: int) -> int | None:
    """The calls before this one, if the bases are to be renewed now; None if not."""
    # The plan asks on the meta device, where there is no count, what a renewal costs.
    calls = 1 + frequency if updates.is_meta else int(updates)
    return None if calls == 0 or (calls - 1) % frequency else calls


def renewed(
    first: Params, second: Params, bases: tuple[Params, Params], factors: tuple[Params, Params], from_nothing: bool
) -> tuple[Params, Params, tuple[Params, Params]]:
    """(first, second, bases) after the next bases of both sides: the first moment is turned, the second permuted."""
    first, second = dict(first), dict(second)
    new_bases = dict(bases[0]), dict(bases[1])
    for side in (0, 1):
        for name, factor in factors[side].items():
            old, order = bases[side][name], None
            if from_nothing:
                new = first_basis(factor)
            else:
                new, order = next_basis(factor, old)
            if name in first:
                first[name] = (
                    _carried(first[name], old, new) if side == 0 else _carried(first[name].mT, old, new).mT.contiguous()
                )
            if order is not None:
                second[name] = _permuted(second[name], order, side)
            new_bases[side][name] = new
    return first, second, new_bases


def _permuted(second: Tensor, order: Tensor, side: int) -> Tensor:
    axis, index = (-2, order.unsqueeze(-1)) if side == 0 else (-1, order.unsqueeze(-2))
    return second.gather(axis, index.expand_as(second))


def _carried(moment: Tensor, old: Tensor, new: Tensor) -> Tensor:
    """new' old M, for M (..., m, n) in the order of fewer products."""
    m, n = moment.shape[-2:]
    return new.mT @ (old @ moment) if n < m else (new.mT @ old) @ moment


def _square(weight: Tensor, side: int) -> Tensor:
    size = weight.shape[side]
    return weight.new_zeros(*weight.shape[:-2], size, size)


def _identity(factor: Tensor) -> Tensor:
    eye = torch.eye(factor.shape[-1], dtype=factor.dtype, device=factor.device)
    return eye.expand_as(factor).clone()


def _turn(x: Tensor, left: Tensor | None, right: Tensor | None) -> Tensor:
    x = x if left is None else left.mT @ x
    return x if right is None else x @ right


def _transposed(basis: Tensor | None) -> Tensor | None:
    return None if basis is None else basis.mT
