"""The metric `preconditioners`: the directions that it compares, and how it judges them."""

from typing import Annotated, Literal

from pydantic import Field, field_validator

from gnflow.spec.base import Count, Expects, Fraction, Listed, Rate, Spec, Unit, refuse
from gnflow.spec.open import Open
from gnflow.spec.parts import Part, make_part
from gnflow.spec.training import GRADIENT, MetricKind, Work

OWN = ("gradient", "oracle", "oracle_layer", "oracle_full")
"""The directions that are always there."""
MATRICES = 6
"""Number of matrices in a block of a model, for an estimate of the cost."""
GRADIENTS = 5
"""Number of observations of the curvature: a diagonal, and two for the preconditioner of each judge."""
KEPT_PRODUCT, KEPT_BEND = 4, 2
"""Costs of G d and of <d, G d> with a Jacobian that is kept, in forward passes."""


class Candidate(Spec):
    """A method whose direction is judged, under a name of its own."""

    name: Annotated[
        str,
        Field(pattern=r"^[a-z0-9][a-z0-9_]{0,39}$"),
        Expects("at most 40 small letters, digits and `_`, a letter or digit first"),
    ]
    """Name of the direction in the columns."""
    use: Annotated[Part, Open("optimizers", seen_as=make_part)]
    """The method. Its momentum and weight decay are left out, and its statistics are renewed at every update."""


class Preconditioners(MetricKind):
    """Efficiency of the directions of several methods, against the Gauss-Newton step of each matrix.

    The efficiency is the decrease of the local quadratic model along a direction, with the best step length, as a part
    of the largest possible decrease. It lies in [0, 1].
    """

    factory = "gnflow.metrics.preconditioners:build_preconditioners"
    kind: Literal["preconditioners"] = "preconditioners"
    of: Listed[Candidate] = ()
    """The methods to compare. The gradient itself and three exact solutions are always compared as well."""
    every: Annotated[Count, Unit("evaluations")] = 10
    """Number of evaluations between measurements. The last evaluation of the run always has one."""
    batches: Annotated[Listed[Count], Unit("micro-batches")] = (1,)
    """Sizes of the batches that gradients, statistics and curvature are taken on. Each size is measured by itself."""
    feeds: Annotated[Count, Unit("batches")] = 8
    """Number of batches that the statistics of a method see at these weights before its direction is taken."""
    damping: Rate = 0.1
    """Damping of the Gauss-Newton matrix of each weight matrix, as a fraction of the mean of its diagonal."""
    tolerance: Fraction = 0.01
    """Exact solutions are found by conjugate gradients, preconditioned by EK-FAC, until the residual is at most this
    part of the gradient."""
    iterations: Annotated[Count, Unit("curvature products")] = 64
    """Largest number of iterations for an exact solution. `preconditioners/residual` is the largest that is left."""

    @field_validator("of")
    @classmethod
    def _require_names(cls, of: tuple[Candidate, ...]) -> tuple[Candidate, ...]:
        names = [*OWN, *(each.name for each in of)]
        for index, each in enumerate(of):
            if each.name in names[: len(OWN) + index]:
                taken = "always there" if each.name in OWN else "the name of another one"
                raise refuse(f"`{each.name}` is {taken}; give this method another name", index)
        return of

    def estimate_work(self, blocks: int) -> Work:
        """Return the largest cost of a measurement: exact solutions, products for every direction, and gradients."""
        directions, groups = len(self.of) + len(OWN), 2 * (MATRICES * blocks + 1)
        solved, rated = self.iterations * (groups + blocks), directions * groups
        gradients = (self.feeds + 2) * (1 + len(self.of)) + GRADIENTS + 2 * groups + blocks
        micro = sum(self.batches)
        forwards = solved * KEPT_PRODUCT + rated * KEPT_BEND + gradients * GRADIENT
        return Work(micro * (solved + rated + gradients), micro * forwards, self.every)
