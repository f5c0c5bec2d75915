"""The minimum of a quadratic objective on one batch, by preconditioned conjugate gradients.

    A x = -gradient(params)      params <- params + x
    m = 1, or sqrt(v) + floor    v the bias-corrected mean of squared gradients, as in Adam, one for each solve

The batch is frozen: every iteration sums the products of the same micro-batches. The number of iterations is the same
for every solve, so that its cost is known; `curvature.conjugate_gradients` says when they stop to matter.

Code:     github.com/gmbabreu/full-gauss-newton (preconditioning by Adam's second moment)
Differs:  the floor is a part of the root mean square of sqrt(v) and not a number, since only ratios within m matter
"""

from typing import NamedTuple

import torch
from torch import Tensor

from gnflow import trees
from gnflow.curvature.conjugate_gradients import Iterate, advance, begin
from gnflow.objective import Metrics, Objective, Params, Scalar
from gnflow.optim.means import mean_gradient, mean_product
from gnflow.optim.protocol import Cost, Jit, counter, eager

FLOOR = 0.1


class ConjugateGradientsState(NamedTuple):
    """Solves so far, and the mean of squared gradients; empty without a preconditioner."""

    solves: Tensor
    second: Params


class ConjugateGradients:
    """One step is one solve. It asks the objective for `gradient` and `product`, and keeps no point of its own."""

    def __init__(
        self,
        iterations: int = 16,
        tolerance: float = 0.0,
        microbatches: int = 1,
        preconditioned: bool = False,
        beta: float = 0.95,
        jit: Jit = eager,
    ) -> None:
        def started(gradient: Tensor, second: Tensor | None, solves: Tensor) -> tuple[Iterate, Tensor, Tensor | None]:
            if second is None:
                unit = torch.ones_like(gradient[0])
                return begin(-gradient, unit), unit, None
            second = beta * second + (1 - beta) * gradient.square()
            root = (second / (1 - beta ** (solves + 1))).sqrt()
            floor = FLOOR * root.square().mean().sqrt() + torch.finfo(root.dtype).tiny
            return begin(-gradient, root + floor), root + floor, second

        def moved(at: Iterate, image: Tensor, preconditioner: Tensor) -> Iterate:
            return advance(at, image, preconditioner, tolerance)

        self.iterations, self.preconditioned = iterations, preconditioned
        self.begin, self.update = jit("begin", started), jit("update", moved)
        calls = {"gradient": microbatches, "begin": 1, "product": iterations * microbatches, "update": iterations}
        self.cost = Cost(solve=microbatches, search=0, passes=1 + iterations, calls=calls)

    @property
    def microbatches(self) -> int:
        """Micro-batches consumed by one step."""
        return self.cost.microbatches

    def init(self, params: Params) -> ConjugateGradientsState:
        """No solve yet."""
        return ConjugateGradientsState(counter(params), trees.zeros(params) if self.preconditioned else {})

    def step(
        self, objective: Objective, params: Params, state: ConjugateGradientsState, batch: Tensor
    ) -> tuple[Params, ConjugateGradientsState, Metrics]:
        """From `params` to the minimum, as far as the iterations go; the loss is that of the objective there."""
        gradient, value = mean_gradient(objective, params, batch)
        second = trees.flat(state.second) if self.preconditioned else None
        at, preconditioner, second = self.begin(trees.flat(gradient), second, state.solves)
        first = at.residual
        for _ in range(self.iterations):
            image = mean_product(objective, trees.shaped(at.direction, params), params, batch)
            at = self.update(at, trees.flat(image), preconditioner)
        metrics = {
            "loss/train": value - 0.5 * at.solution @ (first + at.residual),
            "gn/cg_iterations": at.iterations,
            "gn/residual": _part(torch.linalg.vector_norm(at.residual), at.size),
        }
        kept = {} if second is None else trees.shaped(second, params)
        after = ConjugateGradientsState(state.solves + 1, kept)
        return trees.add(params, trees.shaped(at.solution, params)), after, metrics


def _part(part: Scalar, whole: Scalar) -> Scalar:
    return torch.where(whole == 0, 0.0, part / whole)
