"""`schedule:`: factors on learning rates over the updates of a run, or of an outer step."""

from typing import Annotated, Literal

from pydantic import Field

from gnflow.spec.base import Shorthand, Spec, Unit


class Constant(Spec):
    """The full rate, after a linear warm-up."""

    kind: Literal["constant"] = "constant"
    warmup: Annotated[int, Field(ge=0), Unit("updates")] = 0
    """Updates of linear warm-up."""


class Cosine(Spec):
    """One half cosine from the full rate to `final`, over the whole run."""

    kind: Literal["cosine"] = "cosine"
    warmup: Annotated[int, Field(ge=0), Unit("updates")] = 0
    """Updates of linear warm-up."""
    final: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Last rate, as a fraction of the full one."""


class GlobalCosine(Spec):
    """One half cosine over all inner updates of the run, whatever the outer step."""

    kind: Literal["global_cosine"] = "global_cosine"
    warmup: Annotated[int, Field(ge=0), Unit("updates")] = 0
    """Inner updates of linear warm-up."""
    final: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Last rate, as a fraction of the full one."""


class InnerCosine(Spec):
    """A half cosine inside each outer step, from a peak that itself follows a half cosine over the outer steps."""

    kind: Literal["inner_cosine"] = "inner_cosine"
    final: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Last rate of both, as a fraction of their first."""


class ConstantWithInnerCosine(Spec):
    """A half cosine inside each outer step, always from the full rate."""

    kind: Literal["constant_with_inner_cosine"] = "constant_with_inner_cosine"
    final: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Last rate of an outer step, as a fraction of the full one."""


Schedule = Annotated[Constant | Cosine, Field(discriminator="kind"), Shorthand]
InnerSchedule = Annotated[
    Constant | GlobalCosine | InnerCosine | ConstantWithInnerCosine, Field(discriminator="kind"), Shorthand
]
