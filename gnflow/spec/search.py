"""The searches for the length of a Gauss-Newton step: the section `optimizer.search:` of a spec."""

from typing import Annotated, Literal

from pydantic import Field

from gnflow.spec.base import Count, Rate, Shorthand, Spec, Unit, mark_later

Fresh = Annotated[bool, mark_later(True)]


class GeometricSearch(Spec):
    """Try the step lengths 1, 1/sqrt 2, 1/2, ... and take the one with the lowest true loss, if any helps."""

    kind: Literal["geometric"] = "geometric"
    trials: Annotated[int, Field(ge=1, le=64)] = 5
    """Number of step lengths to try."""
    microbatches: Annotated[Count, Unit("micro-batches")] = 8
    """Number of micro-batches used to evaluate each trial step."""
    fresh: Fresh = True
    """Whether the search uses its own micro-batches. If false, it uses the last ones of the solve."""


class NoSearch(Spec):
    """Take the full step always."""

    kind: Literal["none"] = "none"


class Decrement(Spec):
    """Take 1 / (1 + kappa nu) of the step without a search, where nu is its Newton decrement (arXiv:2511.15019)."""

    kind: Literal["decrement"] = "decrement"
    kappa: Rate = 1.0
    """Estimate of the self-concordance constant of the loss."""
    adaptive: bool = False
    """Adapt kappa from the gain ratio after each step."""
    microbatches: Annotated[Count, Unit("micro-batches")] = 1
    """Number of micro-batches used to compute the Newton decrement. They are the last ones of the solve."""


class BracketSearch(Spec):
    """Try three step lengths around the previous one and take the one with the lowest true loss, if any helps."""

    kind: Literal["bracket"] = "bracket"
    microbatches: Annotated[Count, Unit("micro-batches")] = 8
    """Number of micro-batches used to evaluate each trial step."""
    fresh: Fresh = True
    """Whether the search uses its own micro-batches. If false, it uses the last ones of the solve."""


Search = Annotated[GeometricSearch | Decrement | BracketSearch | NoSearch, Field(discriminator="kind"), Shorthand]
