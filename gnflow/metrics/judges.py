"""A batch on which directions are judged: its gradient g, its Gauss-Newton matrix G, and a damping for each matrix.

    (G + l) x = g   by conjugate gradients, whose preconditioner is EK-FAC of the same batch with the same damping:
    P^-1 R = QB [(QB' R QA) / (C + l)] QA'      QA, QB and C as in `optim/kfac.py`, expand and corrected

P has a block for each matrix, also where several are solved for together. It changes the number of iterations and not
the solution.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from gnflow import trees
from gnflow.curvature.conjugate_gradients import solve
from gnflow.curvature.jacobian import Jacobian
from gnflow.curvature.lanczos import Operator
from gnflow.models.model import Model
from gnflow.objective import Objective, Params, Scalar, Watch
from gnflow.optim.eigenbasis import find_basis
from gnflow.optim.kronecker import expand, square_in
from gnflow.optim.means import average_signals, keep_positive, weigh_microbatches


def invert_blocks(
    loss: Objective, params: Params, damping: Mapping[str, Tensor], batch: Tensor, draw: Callable[[int], Tensor]
) -> Operator:
    """Make r -> P^-1 r for the matrices that have a damping. `draw` makes the noise of a micro-batch's labels."""
    factors = average_signals(loss, params, batch, draw, Watch(dict.fromkeys(damping, expand)))
    right = {name: find_basis(each["inputs"]) for name, each in factors.items()}
    left = {name: find_basis(each["outputs"]) for name, each in factors.items()}
    watch = Watch({name: square_in(left[name], right[name]) for name in damping})
    squares = average_signals(loss, params, batch, draw, watch)
    curvature = {name: keep_positive(squares[name]["squares"] + damping[name]) for name in damping}

    def invert(residual: Params) -> Params:
        return {
            name: left[name] @ ((left[name].mT @ r @ right[name]) / curvature[name]) @ right[name].mT
            for name, r in residual.items()
        }

    return invert


class Solution(NamedTuple):
    """The solution for some matrices with their blocks of G + l."""

    direction: Params
    residual: Scalar
    """Its norm over that of the gradient."""


class Judge:
    """A batch with its gradient. Each call linearises the network around `params` once and forgets it again."""

    def __init__(
        self,
        network: Model,
        loss: Objective,
        params: Params,
        batch: Tensor,
        gradient: Params,
        damping: Mapping[str, Tensor],
        draw: Callable[[int], Tensor],
    ) -> None:
        self.network, self.params, self.batch = network, params, batch
        self.gradient, self.damping = gradient, damping
        counts = weigh_microbatches(loss, batch)
        self.shares = (counts / keep_positive(counts.sum())).to(next(iter(gradient.values())))
        self.invert = invert_blocks(loss, params, damping, batch, draw)

    def solve(self, names: list[str], iterations: int, tolerance: float) -> Solution:
        """Solve for these matrices together."""
        jacobians = self._linearise(names)

        def multiply(direction: Params) -> Params:
            total = {name: self.damping[name] * d for name, d in direction.items()}
            for share, jacobian in zip(self.shares, jacobians, strict=True):
                total = trees.move_along(total, jacobian.multiply(direction), share)
            return total

        gradient = trees.pick(self.gradient, names)
        return Solution(*solve(multiply, gradient, 0.0, iterations, tolerance, self.invert))

    def rate(self, directions: Iterable[Params], best: Params) -> Tensor:
        """Return the efficiency of each direction, for the matrices that `best` solves for together."""
        gradient, jacobians = trees.pick(self.gradient, best), self._linearise(list(best))
        most, found = keep_positive(trees.dot(gradient, best)), []
        for direction in directions:
            d = trees.pick(direction, best)
            bend = torch.stack([jacobian.measure(d) for jacobian in jacobians]) @ self.shares
            bend = bend + trees.dot(d, {name: self.damping[name] * x for name, x in d.items()})
            found.append(trees.dot(gradient, d).clamp(min=0) ** 2 / keep_positive(bend) / most)
        # One tensor: many small ones would break the blocks of memory that the next linearisation takes.
        return torch.stack(found)

    def _linearise(self, names: list[str]) -> list[Jacobian]:
        return [Jacobian(self.network, self.params, names, tokens) for tokens in self.batch]
