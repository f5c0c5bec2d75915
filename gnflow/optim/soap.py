"""Adam in the eigenbasis of Shampoo's factors.

    X = QL' G QR
    M <- b1 M + (1 - b1) X,   V <- b2 V + (1 - b2) X^2                        both in the eigenbasis
    W <- (1 - lr decay) (W - lr c QL [M / (sqrt V + eps)] QR')                c = sqrt(1 - b2^t) / (1 - b1^t)
    L <- s L + (1 - s) G G',   R <- s R + (1 - s) G' G
    every f updates:  QL <- qr(L QL), QR <- qr(R QR), columns by falling eigenvalue;  M turned, V permuted along

A side longer than `max_precondition_dim` keeps the identity; vectors are left to plain Adam. The first call only fills
the factors. Matrices of one shape are worked on as one stack.

    refresh: staggered   side i of all sides of all matrices is renewed at update 1 and at every f-th from i + 1 on
    sides: shorter       X = QL' G if m <= n, or else G QR: the other side keeps the identity
    block_size           G consists of blocks, and each has L, R, QL and QR of its own
    dtype: bfloat16      G, QL, QR and X are rounded to bfloat16 where they are multiplied, and each product is rounded

Source:   Vyas et al. 2024, arXiv:2409.11321 (`sides`: section 6); `fresh_factors`: arXiv:2607.20548; blocks: Shi et al.
          2023, arXiv:2309.06497
Code:     github.com/nikhilvyas/SOAP soap.py @ a1e5535
Differs:  three axes are a stack of matrices, not a tensor with three factors
Use:      large batches, where memory allows two factors and two bases for each matrix. At 131,072 tokens a step it
          needs fewer steps than AdamW and as many as Muon (docs/results)
"""

from collections.abc import Callable
from typing import Literal, NamedTuple, TypeAlias

import torch
from torch import Tensor

from gnflow import trees
from gnflow.objective import Params
from gnflow.optim import bases
from gnflow.optim.arguments import add_help_of
from gnflow.optim.bases import Multiply, Sides
from gnflow.optim.decay import find_decay
from gnflow.optim.momentum import require_choice
from gnflow.optim.protocol import Fisher, Transform, make_counter, make_rate, refuse_shape
from gnflow.optim.schedules import Schedule, constant
from gnflow.spec.rules import Cautious, SoapRule


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


Refresh: TypeAlias = Literal["together", "staggered"]
ProductType: TypeAlias = Literal["auto", "bfloat16"]


class Savings(NamedTuple):
    """The choices that make eigenbases cheaper. By default they are computed in full."""

    refresh: Refresh = "together"
    sides: Sides = "both"
    block_size: int | None = None
    dtype: ProductType = "auto"


class Average(NamedTuple):
    """A factor before an update, and A of the product A G' (left side) or A G (right side) that enters its average."""

    before: Tensor
    fresh: Tensor

    def update(self, beta: float, gradient: Tensor, multiply: Multiply = torch.matmul) -> Tensor:
        """Return the factor after an update, given G' (left side) or G (right side)."""
        return beta * self.before + multiply((1 - beta) * self.fresh, gradient)


class Factors(NamedTuple):
    """The functions (name, G, state) -> average for the factors of both sides."""

    left: Callable[[str, Tensor, SoapState], Average]
    right: Callable[[str, Tensor, SoapState], Average]


SHAMPOO = Factors(
    lambda name, gradient, state: Average(state.left[name], gradient),
    lambda name, gradient, state: Average(state.right[name], gradient.mT),
)
"""L averages G G', and R averages G' G."""


@add_help_of(SoapRule)
def soap(
    learning_rate: float = 3e-3,
    betas: tuple[float, float] = (0.95, 0.95),
    eps: float = 1e-8,
    weight_decay: float | Cautious = 0.01,
    precondition_frequency: int = 10,
    max_precondition_dim: int = 10_000,
    shampoo_beta: float | None = None,
    normalize_gradients: bool = False,
    fresh_factors: bool = False,
    schedule: Schedule | None = None,
    *,
    refresh: Refresh = "together",
    sides: Sides = "both",
    block_size: int | None = None,
    dtype: ProductType = "auto",
) -> Transform[SoapState]:
    """Make SOAP for vectors, matrices (m, n) and stacks (k, m, n). Raises ValueError in `init` for anything else."""
    return adam_in_bases(
        "soap", SHAMPOO,
        learning_rate, betas, eps, weight_decay, precondition_frequency, max_precondition_dim, shampoo_beta,
        normalize_gradients, fresh_factors, schedule, Savings(refresh, sides, block_size, dtype),
    )  # fmt: skip


def adam_in_bases(
    method: str,
    factors: Factors,
    learning_rate: float,
    betas: tuple[float, float],
    eps: float,
    weight_decay: float | Cautious,
    precondition_frequency: int,
    max_precondition_dim: int,
    shampoo_beta: float | None,
    normalize_gradients: bool,
    fresh_factors: bool,
    schedule: Schedule | None,
    savings: Savings,
) -> Transform[SoapState]:
    """Make SOAP with factors that are averages of other products. Errors begin with `method`."""
    require_choice(method, "refresh", savings.refresh, ("together", "staggered"))
    require_choice(method, "sides", savings.sides, ("both", "shorter"))
    require_choice(method, "dtype", savings.dtype, ("auto", "bfloat16"))
    multiply = bases.multiply_in_bfloat16 if savings.dtype == "bfloat16" else torch.matmul
    factor = schedule or constant()
    b1, b2 = betas
    fading = b2 if shampoo_beta is None else shampoo_beta

    def init(params: Params) -> SoapState:
        for name, value in params.items():
            if value.ndim not in (1, 2, 3):
                raise refuse_shape(method, "vectors, matrices and stacks of them", name, value)
        left, right = bases.begin_factors(params, max_precondition_dim, savings.sides, savings.block_size)
        moments = trees.zeros(params), trees.zeros(params)
        turned = bases.begin_bases(left), bases.begin_bases(right)
        return SoapState(make_counter(params), make_rate(learning_rate, params), *moments, left, right, *turned)

    def into(tree: Params, state: SoapState) -> Params:
        return bases.turn_into(tree, state.left_basis, state.right_basis, multiply)

    def back(tree: Params, state: SoapState) -> Params:
        return bases.turn_back(tree, state.left_basis, state.right_basis, multiply)

    def update(gradients: Params, state: SoapState, params: Params) -> tuple[Params, SoapState]:
        return feed(gradients, gradients, gradients, state, params)

    def feed(
        direction: Params, seen: Params, second: Params, state: SoapState, params: Params
    ) -> tuple[Params, SoapState]:
        step, live = state.updates.double(), state.updates > 0
        lr = state.learning_rate * factor(state.updates)
        size = lr * (1 - b2 ** step.clamp(min=1)).sqrt() / (1 - b1 ** step.clamp(min=1)) * live
        turned = into(direction, state)
        squared = turned if second is direction else into(second, state)
        first = {name: torch.where(live, b1 * m + (1 - b1) * turned[name], m) for name, m in state.first.items()}
        square = {
            name: torch.where(live, b2 * v + (1 - b2) * squared[name] ** 2, v) for name, v in state.second.items()
        }
        adam = back({name: m / (square[name].sqrt() + eps) for name, m in first.items()}, state)
        if normalize_gradients:
            adam = {name: u / _measure_rms(u).clamp(min=eps) for name, u in adam.items()}
        updates = {}
        for name, u in adam.items():
            kept = 1 - lr * find_decay(weight_decay, u, params[name]) * live
            updates[name] = kept * (params[name] - size * u) - params[name]
        left, right = average(seen, state)
        return updates, state._replace(updates=state.updates + 1, first=first, second=square, left=left, right=right)

    def average(gradients: Params, state: SoapState) -> tuple[Params, Params]:
        blocks = {name: bases.cut(g, state.left.get(name), state.right.get(name)) for name, g in gradients.items()}
        left = {name: factors.left(name, blocks[name], state) for name in state.left}
        right = {name: factors.right(name, blocks[name], state) for name in state.right}
        return (
            {name: each.update(fading, blocks[name].mT, multiply) for name, each in left.items()},
            {name: each.update(fading, blocks[name], multiply) for name, each in right.items()},
        )

    def refresh(gradients: Params, state: SoapState) -> SoapState:
        in_turn = savings.refresh == "staggered"
        calls = bases.count_if_due(state.updates, 1 if in_turn else precondition_frequency)
        if calls is None:
            return state
        # The plan asks on the meta device what a whole renewal costs.
        in_turn = in_turn and calls > 1 and not state.updates.is_meta
        part = bases.Part(calls - 1, precondition_frequency) if in_turn else bases.ALL
        sides = average(gradients, state) if fresh_factors else (state.left, state.right)
        turned = state.left_basis, state.right_basis
        first, second, turned = bases.renew(state.first, state.second, turned, sides, calls == 1, part)
        return state._replace(first=first, second=second, left_basis=turned[0], right_basis=turned[1])

    def diagonal(state: SoapState) -> Params:
        step = (state.updates - 1).clamp(min=1).double()
        return {name: v / (1 - b2**step) for name, v in state.second.items()}

    return Transform(init, update, refresh, precondition_frequency, Fisher(into, back, diagonal, feed))


def _measure_rms(update: Tensor) -> Tensor:
    if update.ndim == 1:
        return update.square().mean().sqrt()
    return update.square().mean((-2, -1), keepdim=True).sqrt()
