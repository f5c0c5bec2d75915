"""Schedules: how learning rates change over the updates of a run or of an outer step."""

from typing import Annotated, Literal

from pydantic import Field

from gnflow.spec.base import Shorthand, Spec, Unit


class Constant(Spec):
    """The full learning rate throughout, after an optional linear warm-up."""

    kind: Literal["constant"] = "constant"
    warmup: Annotated[int, Field(ge=0), Unit("updates")] = 0
    """Number of updates in the linear warm-up."""


class Cosine(Spec):
    """Half a cosine from the full learning rate down to `final`, over the whole run."""

    kind: Literal["cosine"] = "cosine"
    warmup: Annotated[int, Field(ge=0), Unit("updates")] = 0
    """Number of updates in the linear warm-up."""
    final: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Last learning rate, as a fraction of the full one."""


class GlobalCosine(Spec):
    """Half a cosine over all inner updates of the run, from the first outer step to the last."""

    kind: Literal["global_cosine"] = "global_cosine"
    warmup: Annotated[int, Field(ge=0), Unit("updates")] = 0
    """Number of inner updates in the linear warm-up."""
    final: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Last learning rate, as a fraction of the full one."""


class InnerCosine(Spec):
    """Half a cosine inside each outer step. Its peak follows half a cosine over the outer steps."""

    kind: Literal["inner_cosine"] = "inner_cosine"
    final: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Last learning rate of both cosines, as a fraction of their first."""


class ConstantWithInnerCosine(Spec):
    """Half a cosine inside each outer step, always from the full learning rate."""

    kind: Literal["constant_with_inner_cosine"] = "constant_with_inner_cosine"
    final: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Last learning rate of an outer step, as a fraction of the full one."""


Schedule = Annotated[Constant | Cosine, Field(discriminator="kind"), Shorthand]
InnerSchedule = Annotated[
    Constant | GlobalCosine | InnerCosine | ConstantWithInnerCosine, Field(discriminator="kind"), Shorthand
]
