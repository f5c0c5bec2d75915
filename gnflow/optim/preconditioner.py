"""What conjugate gradients ask of a preconditioner P, and the order of the parameters in their vectors."""

from collections.abc import Collection, Mapping, Sequence
from math import prod
from typing import Protocol

from torch import Tensor

from gnflow.objective import LocalModel, Params, Scalar
from gnflow.optim.observation import Draw
from gnflow.optim.protocol import AnyState
from gnflow.optim.stacks import Stacks


class Preconditioner(Protocol):
    """P is diagonal in coordinates of its own. All trees are by stack."""

    turned: Collection[str]
    """Matrices with coordinates of their own. All other parameters keep theirs and are joined into one vector."""
    transposed: Collection[str]
    """Matrices among these that the model stores as (in, out) and that are joined as (out, in)."""
    passes: int
    """Number of passes of an observation that follow one another. They need not wait for the gradient."""
    region: str
    """The name of the work of an observation in the plan."""
    every: int
    """The argument `every` with which this work goes through a `Jit`."""

    def init(self, stacked: Params) -> AnyState:
        """Return the state before the first solve."""

    def observe(
        self, model: LocalModel, order: Stacks, gradient: Params, batch: Tensor, state: AnyState, draw: Draw
    ) -> AnyState:
        """Update the state for a solve on this batch, whose mean gradient (by name) is given."""

    def take_scale(self, state: AnyState, damping: Scalar) -> Params:
        """Return the diagonal of P in its coordinates for a model with this damping."""

    def apply_inverse(self, residual: Params, scale: Params, state: AnyState) -> Params:
        """Return P^-1 residual."""


def arrange(
    shapes: Mapping[str, Sequence[int]], turned: Collection[str] = (), transposed: Collection[str] = ()
) -> Stacks:
    """Stack the parameters that are `turned` by shape, and join all others into one vector."""
    routes = {name: "turned" if name in turned else "others" for name in shapes}
    return Stacks.by_rule(
        routes,
        {name: tuple(shape) if name in turned else (prod(shape),) for name, shape in shapes.items()},
        transposed=[name for name in transposed if name in turned],
    )
