"""Minimises a quadratic objective on one batch by preconditioned conjugate gradients.

    A x = -gradient(params)      params <- params + x

Every iteration sums the products of the same micro-batches. The number of iterations is the same for every solve, so
that its cost is known. `curvature.conjugate_gradients` says when further iterations change nothing, and what happens
if the matrix is not positive.

`preconditioner.py` has what P must offer, and `gradient_preconditioner.py` and `curvature_preconditioner.py` have two.

Use:      a solver of the quadratic model on one batch that has no learning rate, as in
          docs/results/error_whitening.md. Its products follow one another
"""

from collections.abc import Callable, Iterator
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from gnflow import trees
from gnflow.curvature.conjugate_gradients import Iterate, advance, begin
from gnflow.objective import LocalModel, Metrics, Params, Scalar
from gnflow.optim.means import average_gradient, average_product
from gnflow.optim.observation import draw_noise
from gnflow.optim.preconditioner import Preconditioner, arrange
from gnflow.optim.protocol import AnyState, Cost, Diagonal, Jit, KeptByAll, Part, eager, make_counter
from gnflow.optim.stacks import Stacks


class ConjugateGradientsState(NamedTuple):
    """The number of solves so far, and the statistics of the preconditioner, which are empty without one."""

    solves: Tensor
    statistics: AnyState


class ConjugateGradients(KeptByAll):
    """An optimizer whose step is one solve. It uses `gradient` and `product` of the model and keeps no point."""

    def __init__(
        self,
        iterations: int = 16,
        tolerance: float = 0.0,
        microbatches: int = 1,
        preconditioner: Preconditioner | None = None,
        jit: Jit = eager,
        seed: int = 0,
    ) -> None:
        def inverse(scale: Params, statistics: AnyState) -> Callable[[Tensor], Tensor]:
            if preconditioner is None:
                return lambda residual: residual
            return lambda r: trees.flatten(preconditioner.apply_inverse(trees.unflatten(r, scale), scale, statistics))

        def start(gradient: Params, statistics: AnyState, damping: Tensor) -> tuple[Iterate, Params]:
            # `inverse` splits vectors by the scale, so its stacks must be in the order of those of the gradient.
            scale = trees.pick(preconditioner.take_scale(statistics, damping), gradient) if preconditioner else {}
            return begin(trees.flatten(gradient).neg_(), inverse(scale, statistics)), scale

        def move(at: Iterate, image: Tensor, scale: Params, statistics: AnyState) -> Iterate:
            return advance(at, image, inverse(scale, statistics), tolerance)

        self.iterations, self.preconditioner, self.seed = iterations, preconditioner, seed
        self.begin, self.update = jit("begin", start), jit("update", move)
        if preconditioner is not None:
            self.observe = jit(preconditioner.region, preconditioner.observe, every=preconditioner.every)
        before = max(1, preconditioner.passes if preconditioner is not None else 0)
        self.cost = Cost(solve=microbatches, search=0, passes=before + iterations)

    @property
    def microbatches(self) -> int:
        """Number of micro-batches that one step consumes."""
        return self.cost.microbatches

    def order(self, params: Params) -> Stacks:
        """Return the order in which the vectors hold the parameters."""
        shapes = {name: tuple(weight.shape) for name, weight in params.items()}
        if self.preconditioner is None:
            return arrange(shapes)
        return arrange(shapes, self.preconditioner.turned, self.preconditioner.transposed)

    def init(self, params: Params) -> ConjugateGradientsState:
        """Return the state before the first solve."""
        kept = self.preconditioner.init(self.order(params).stack(params)) if self.preconditioner else {}
        return ConjugateGradientsState(make_counter(params), kept)

    def parts(self, params: Params, state: ConjugateGradientsState) -> Iterator[Part]:
        """Return this solver alone."""
        yield Part(self, params, state)

    def diagonal(self, state: ConjugateGradientsState) -> Diagonal | None:
        """Return None, since its preconditioner does not scale its step."""
        return None

    def refresh(
        self, model: LocalModel, order: Stacks, gradient: Params, state: ConjugateGradientsState, batch: Tensor
    ) -> ConjugateGradientsState:
        """Begin a solve and update the preconditioner with its gradient and batch. This is rare work, not compiled."""
        seen = state.statistics
        if self.preconditioner is not None:
            draw = partial(_draw, batch, self.seed, state.solves)
            seen = self.observe(model, order, gradient, batch, seen, draw)
        return ConjugateGradientsState(state.solves + 1, seen)

    def step(
        self, objective: LocalModel, params: Params, state: ConjugateGradientsState, batch: Tensor
    ) -> tuple[Params, ConjugateGradientsState, Metrics]:
        """Go from `params` towards the minimum. The loss that it returns is the model's at the point reached."""
        order = self.order(params)
        gradient, value = average_gradient(objective, params, batch)
        state = self.refresh(objective, order, gradient, state, batch)
        right = order.stack(gradient)
        del gradient
        damping = torch.zeros_like(value) if objective.damping is None else objective.damping
        at, scale = self.begin(right, state.statistics, damping)
        del right
        # Without a preconditioner direction and residual are equal, so a compiled region returns one tensor for both.
        # The next region would be compiled a second time for that.
        at = at._replace(direction=at.direction.clone())
        first, curve = at.residual, {}

        def unflatten(vector: Tensor) -> Params:
            parts = order.unflatten(vector)
            return {name: parts[name].view(weight.shape) for name, weight in params.items()}

        for count in range(1, self.iterations + 1):
            image = order.flatten(average_product(objective, unflatten(at.direction), batch))
            at = self.update(at, image, scale, state.statistics)
            del image
            if count & (count - 1) == 0:
                curve[f"gn/residual_{count}"] = _divide(torch.linalg.vector_norm(at.residual), at.size)
        metrics = {
            "loss/train": value - 0.5 * at.solution @ (first + at.residual),
            "gn/cg_iterations": at.iterations,
            "gn/residual": _divide(torch.linalg.vector_norm(at.residual), at.size),
            **curve,
        }
        return trees.add(params, unflatten(at.solution)), state, metrics


def _draw(batch: Tensor, seed: int, solves: Tensor, index: int) -> Tensor:
    # The host reads the count only where labels are drawn. The plan solves on the meta device, where there is none.
    number = 0 if solves.is_meta else int(solves)
    return draw_noise(batch[index], f"labels/{seed}/{number}/{index}")


def _divide(part: Scalar, whole: Scalar) -> Scalar:
    return torch.where(whole == 0, 0.0, part / whole)
