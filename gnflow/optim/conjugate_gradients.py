"""The minimum of a quadratic objective on one batch, by preconditioned conjugate gradients.

    A x = -gradient(params)      params <- params + x

The batch is frozen: every iteration sums the products of the same micro-batches. The number of iterations is the same
for every solve, so that its cost is known; `curvature.conjugate_gradients` says when they stop to matter, and what a
matrix that is not positive does to them.
"""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from gnflow import trees
from gnflow.curvature.conjugate_gradients import Iterate, advance, begin
from gnflow.objective import LocalModel, Metrics, Params, Scalar
from gnflow.optim.means import mean_gradient, mean_product
from gnflow.optim.preconditioner import Preconditioner, arrange
from gnflow.optim.protocol import AnyState, Cost, Diagonal, Jit, Part, counter, eager
from gnflow.optim.stacks import Stacks


class ConjugateGradientsState(NamedTuple):
    """Solves so far, and what the preconditioner has seen; empty without one."""

    solves: Tensor
    statistics: AnyState


class ConjugateGradients:
    """One step is one solve. It asks the model for `gradient` and `product`, and keeps no point of its own."""

    def __init__(
        self,
        iterations: int = 16,
        tolerance: float = 0.0,
        microbatches: int = 1,
        preconditioner: Preconditioner | None = None,
        jit: Jit = eager,
    ) -> None:
        def inverse(roots: Params, statistics: AnyState) -> Callable[[Tensor], Tensor]:
            if preconditioner is None:
                return lambda residual: residual
            return lambda r: trees.flatten(preconditioner.inverse(trees.unflatten(r, roots), roots, statistics))

        def started(gradient: Tensor, statistics: AnyState) -> tuple[Iterate, Params]:
            roots = {} if preconditioner is None else preconditioner.roots(statistics)
            return begin(-gradient, inverse(roots, statistics)), roots

        def moved(at: Iterate, image: Tensor, roots: Params, statistics: AnyState) -> Iterate:
            return advance(at, image, inverse(roots, statistics), tolerance)

        self.iterations, self.preconditioner = iterations, preconditioner
        self.begin, self.update = jit("begin", started), jit("update", moved)
        if preconditioner is not None:
            self.see = jit("refresh", preconditioner.refresh, every=1)
        self.cost = Cost(solve=microbatches, search=0, passes=1 + iterations)

    @property
    def microbatches(self) -> int:
        """Micro-batches consumed by one step."""
        return self.cost.microbatches

    def order(self, params: Params) -> Stacks:
        """In which order its vectors hold the parameters."""
        shapes = {name: tuple(weight.shape) for name, weight in params.items()}
        return arrange(shapes, self.preconditioner.turned if self.preconditioner else ())

    def init(self, params: Params) -> ConjugateGradientsState:
        """No solve yet."""
        kept = self.preconditioner.init(self.order(params).stack(params)) if self.preconditioner else {}
        return ConjugateGradientsState(counter(params), kept)

    def parts(self, params: Params, state: ConjugateGradientsState) -> Iterator[Part]:
        """Itself alone."""
        yield Part(self, params, state)

    def diagonal(self, state: ConjugateGradientsState) -> Diagonal | None:
        """None: what it is preconditioned with is no part of its step."""
        return None

    def refresh(self, gradient: Params, state: ConjugateGradientsState) -> ConjugateGradientsState:
        """A new solve, whose gradient the preconditioner sees. Its work is rare, and is not compiled."""
        seen = state.statistics
        if self.preconditioner is not None:
            seen = self.see(self.order(gradient).stack(gradient), seen)
        return ConjugateGradientsState(state.solves + 1, seen)

    def step(
        self, objective: LocalModel, params: Params, state: ConjugateGradientsState, batch: Tensor
    ) -> tuple[Params, ConjugateGradientsState, Metrics]:
        """From `params` to the minimum, as far as the iterations go; the loss is that of the model there."""
        order = self.order(params)
        names = [name for stack in order.members.values() for name in stack]

        def flat(tree: Params) -> Tensor:
            return trees.flatten(trees.pick(tree, names))

        def shaped(vector: Tensor) -> Params:
            return trees.pick(trees.unflatten(vector, trees.pick(params, names)), params)

        gradient, value = mean_gradient(objective, params, batch)
        state = self.refresh(gradient, state)
        right = flat(gradient)
        del gradient
        at, roots = self.begin(right, state.statistics)
        del right
        # Without a preconditioner direction and residual are equal: a compiled region gives one tensor for both, and
        # the next would be compiled a second time.
        at = at._replace(direction=at.direction.clone())
        first, curve = at.residual, {}
        for count in range(1, self.iterations + 1):
            image = flat(mean_product(objective, shaped(at.direction), batch))
            at = self.update(at, image, roots, state.statistics)
            del image
            if count & (count - 1) == 0:
                curve[f"gn/residual_{count}"] = _divide(torch.linalg.vector_norm(at.residual), at.size)
        metrics = {
            "loss/train": value - 0.5 * at.solution @ (first + at.residual),
            "gn/cg_iterations": at.iterations,
            "gn/residual": _divide(torch.linalg.vector_norm(at.residual), at.size),
            **curve,
        }
        return trees.add(params, shaped(at.solution)), state, metrics


def _divide(part: Scalar, whole: Scalar) -> Scalar:
    return torch.where(whole == 0, 0.0, part / whole)
