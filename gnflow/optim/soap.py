"""Adam in the eigenbasis of Shampoo's factors.

    X = QL' G QR
    M <- b1 M + (1 - b1) X,   V <- b2 V + (1 - b2) X^2                        both in the eigenbasis
    W <- (1 - lr decay) (W - lr c QL [M / (sqrt V + eps)] QR')                c = sqrt(1 - b2^t) / (1 - b1^t)
    L <- s L + (1 - s) G G',   R <- s R + (1 - s) G' G
    every f updates:  QL <- qr(L QL), QR <- qr(R QR), columns by falling eigenvalue;  M turned, V permuted along

A side longer than `max_precondition_dim` keeps the identity; vectors are left to plain Adam. The first call only fills
the factors. Matrices of one shape are worked on as one stack.

Source:   Vyas et al. 2024, arXiv:2409.11321; `fresh_factors`: arXiv:2607.20548
Code:     github.com/nikhilvyas/SOAP soap.py @ a1e5535
Differs:  three axes are a stack of matrices, not a tensor with three factors
"""

from typing import NamedTuple

import torch
from torch import Tensor

from gnflow import trees
from gnflow.objective import Params
from gnflow.optim.arguments import described_by
from gnflow.optim.eigenbasis import first_basis, next_basis
from gnflow.optim.protocol import Fisher, Transform, make_counter, make_rate, unfit
from gnflow.optim.schedules import Schedule, constant
from gnflow.spec.rules import SoapRule


class SoapState(NamedTuple):
    """Calls made, learning rate; moments in the eigenbasis; factors and bases of the preconditioned sides."""

    updates: Tensor
    learning_rate: Tensor
    first: Params
    second: Params
    left: Params
    right: Params
    left_basis: Params
    right_basis: Params


@described_by(SoapRule)
def soap(
    learning_rate: float = 3e-3,
    betas: tuple[float, float] = (0.95, 0.95),
    eps: float = 1e-8,
    weight_decay: float = 0.01,
    precondition_frequency: int = 10,
    max_precondition_dim: int = 10_000,
    shampoo_beta: float | None = None,
    normalize_gradients: bool = False,
    fresh_factors: bool = False,
    schedule: Schedule | None = None,
) -> Transform[SoapState]:
    """SOAP for vectors, matrices (m, n) and stacks of them (k, m, n). Raises ValueError in `init` for anything else."""
    factor = schedule or constant()
    b1, b2 = betas
    fading = b2 if shampoo_beta is None else shampoo_beta

    def init(params: Params) -> SoapState:
        for name, value in params.items():
            if value.ndim not in (1, 2, 3):
                raise unfit("soap", "vectors, matrices and stacks of them", name, value)
        matrices = {name: value for name, value in params.items() if value.ndim > 1}
        left = {name: _square(w, -2) for name, w in matrices.items() if w.shape[-2] <= max_precondition_dim}
        right = {name: _square(w, -1) for name, w in matrices.items() if w.shape[-1] <= max_precondition_dim}
        moments = trees.zeros(params), trees.zeros(params)
        bases = trees.map_tensors(_identity, left), trees.map_tensors(_identity, right)
        return SoapState(make_counter(params), make_rate(learning_rate, params), *moments, left, right, *bases)

    def into(tree: Params, state: SoapState) -> Params:
        return {name: _turn(x, state.left_basis.get(name), state.right_basis.get(name)) for name, x in tree.items()}

    def back(tree: Params, state: SoapState) -> Params:
        return {
            name: _turn(x, _transposed(state.left_basis.get(name)), _transposed(state.right_basis.get(name)))
            for name, x in tree.items()
        }

    def update(gradients: Params, state: SoapState, params: Params) -> tuple[Params, SoapState]:
        return fed(gradients, gradients, gradients, state, params)

    def fed(
        direction: Params, factors: Params, second: Params, state: SoapState, params: Params
    ) -> tuple[Params, SoapState]:
        step, live = state.updates.double(), state.updates > 0
        lr = state.learning_rate * factor(state.updates)
        size = lr * (1 - b2 ** step.clamp(min=1)).sqrt() / (1 - b1 ** step.clamp(min=1)) * live
        turned = into(direction, state)
        seen = turned if second is direction else into(second, state)
        first = {name: torch.where(live, b1 * m + (1 - b1) * turned[name], m) for name, m in state.first.items()}
        square = {name: torch.where(live, b2 * v + (1 - b2) * seen[name] ** 2, v) for name, v in state.second.items()}
        adam = back({name: m / (square[name].sqrt() + eps) for name, m in first.items()}, state)
        if normalize_gradients:
            adam = {name: u / _rms(u).clamp(min=eps) for name, u in adam.items()}
        kept = 1 - lr * weight_decay * live
        updates = {name: kept * (params[name] - size * u) - params[name] for name, u in adam.items()}
        after = state._replace(
            updates=state.updates + 1,
            first=first,
            second=square,
            left={name: left(name, lhs, factors) for name, lhs in state.left.items()},
            right={name: right(name, rhs, factors) for name, rhs in state.right.items()},
        )
        return updates, after

    def left(name: str, before: Tensor, gradients: Params) -> Tensor:
        return fading * before + (1 - fading) * gradients[name] @ gradients[name].mT

    def right(name: str, before: Tensor, gradients: Params) -> Tensor:
        return fading * before + (1 - fading) * gradients[name].mT @ gradients[name]

    def refresh(gradients: Params, state: SoapState) -> SoapState:
        # The plan asks on the meta device, where there is no count, what a refresh costs.
        calls = 1 + precondition_frequency if state.updates.is_meta else int(state.updates)
        if calls == 0 or (calls - 1) % precondition_frequency:
            return state
        lhs, rhs = state.left, state.right
        if fresh_factors:
            lhs = {name: left(name, value, gradients) for name, value in lhs.items()}
            rhs = {name: right(name, value, gradients) for name, value in rhs.items()}
        return _rotated(state, lhs, rhs, from_nothing=calls == 1)

    def diagonal(state: SoapState) -> Params:
        step = (state.updates - 1).clamp(min=1).double()
        return {name: v / (1 - b2**step) for name, v in state.second.items()}

    return Transform(
        init, update, refresh, precondition_frequency, Fisher(into, back, diagonal, fed)
    )  # fmt: skip


def _rotated(state: SoapState, left: Params, right: Params, from_nothing: bool) -> SoapState:
    """The moments carried over into the next bases of both sides."""
    first, second = dict(state.first), dict(state.second)
    bases = dict(state.left_basis), dict(state.right_basis)
    for side, factors in enumerate((left, right)):
        for name, factor in factors.items():
            old, order = bases[side][name], None
            if from_nothing:
                new = first_basis(factor)
            else:
                new, order = next_basis(factor, old)
            if side == 0:
                if name in first:
                    first[name] = _carried(first[name], old, new)
                second[name] = (
                    second[name]
                    if order is None
                    else second[name].gather(-2, order.unsqueeze(-1).expand_as(second[name]))
                )
            else:
                if name in first:
                    first[name] = _carried(first[name].mT, old, new).mT.contiguous()
                second[name] = (
                    second[name]
                    if order is None
                    else second[name].gather(-1, order.unsqueeze(-2).expand_as(second[name]))
                )
            bases[side][name] = new
    return state._replace(first=first, second=second, left_basis=bases[0], right_basis=bases[1])


def _carried(moment: Tensor, old: Tensor, new: Tensor) -> Tensor:
    """new' old M, for M (..., m, n) in the order of fewer products."""
    m, n = moment.shape[-2:]
    return new.mT @ (old @ moment) if n < m else (new.mT @ old) @ moment


def _square(weight: Tensor, side: int) -> Tensor:
    size = weight.shape[side]
    return weight.new_zeros(*weight.shape[:-2], size, size)


def _identity(factor: Tensor) -> Tensor:
    if not factor.numel():
        return torch.empty_like(factor)
    eye = torch.eye(factor.shape[-1], dtype=factor.dtype, device=factor.device)
    return eye.expand_as(factor).clone()


def _turn(x: Tensor, left: Tensor | None, right: Tensor | None) -> Tensor:
    x = x if left is None else left.mT @ x
    return x if right is None else x @ right


def _transposed(basis: Tensor | None) -> Tensor | None:
    return None if basis is None else basis.mT


def _rms(update: Tensor) -> Tensor:
    if update.ndim == 1:
        return update.square().mean().sqrt()
    return update.square().mean((-2, -1), keepdim=True).sqrt()
