"""Schedules: how learning rates change over the updates of a run or of an outer step."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from gnflow.spec.base import Rate, Shorthand, Spec, mark_later, refuse
from gnflow.spec.span import Span, measure

Final = Annotated[float, Field(ge=0, le=1)]


class ScheduleKind(Spec):
    """The base of every schedule."""

    @property
    def looks_ahead(self) -> bool:
        """Whether a factor depends on how many updates the whole run has."""
        return True


class Warming(ScheduleKind):
    """The base of the schedules that begin with a linear warm-up."""

    kind: Literal["constant", "cosine", "linear", "wsd", "global_cosine"]
    warmup: Span = 0
    """Length of the linear warm-up: a number of updates, or a fraction of the run. 0 means no warm-up."""
    warmup_from: Annotated[Final | None, mark_later(None)] = None
    """Learning rate of the first update, as a fraction of the full rate, which is then reached one update after the
    warm-up. Default: 1/`warmup`, with the full rate at the last update of the warm-up."""


class HalfCosine(Warming):
    """The base of `cosine` and of its older name."""

    kind: Literal["cosine", "global_cosine"]
    final: Final = 0.0
    """Last learning rate, as a fraction of the full rate."""


class Constant(Warming):
    """The full rate, after a linear warm-up."""

    kind: Literal["constant"] = "constant"

    @property
    def looks_ahead(self) -> bool:
        """Whether the warm-up is a fraction of the run, so that it depends on the length of the run."""
        return isinstance(self.warmup, float)


class Cosine(HalfCosine):
    """One half cosine from the full rate to `final`, over the whole run."""

    kind: Literal["cosine"] = "cosine"


class Linear(Warming):
    """A straight line from the full rate to `final`, over all updates after the warm-up."""

    kind: Literal["linear"] = "linear"
    final: Final = 0.0
    """The learning rate that the line would reach one update after the last, as a fraction of the full rate."""


class Wsd(Warming):
    """Warm-up, stable, decay: a linear warm-up, the full rate, and a decay to `final` over the last updates."""

    kind: Literal["wsd"] = "wsd"
    decay: Span = 0.2
    """Length of the decay at the end of the run: a number of updates, or a fraction of the run."""
    shape: Literal["linear", "cosine", "sqrt", "power"] = "linear"
    """Shape of the decay: the factor is t (`linear`), (1 - cos pi t)/2 (`cosine`), 1 - sqrt(1 - t) (`sqrt`) or
    t^`power` (`power`), where t falls from 1 to 0."""
    power: Rate | None = None
    """Exponent of `shape: power`. Other shapes have none."""
    final: Final = 0.0
    """The learning rate that the decay would reach one update after the last, as a fraction of the full rate."""

    @model_validator(mode="after")
    def _check_power(self) -> "Wsd":
        if self.shape == "power" and self.power is None:
            raise refuse("`shape: power` needs its exponent; add `power: 1.5` or another", "shape")
        if self.shape != "power" and self.power is not None:
            raise refuse(f"`shape: {self.shape}` has no exponent; remove `power` or set `shape: power`", "power")
        return self


class GlobalCosine(HalfCosine):
    """An older name of `cosine`: one half cosine over all inner updates of the run, independent of outer steps."""

    kind: Literal["global_cosine"] = "global_cosine"


class InnerCosine(ScheduleKind):
    """A half cosine inside each outer step, from a peak that itself follows a half cosine over the outer steps."""

    kind: Literal["inner_cosine"] = "inner_cosine"
    final: Final = 0.0
    """Last value of each half cosine, as a fraction of its first value."""


class ConstantWithInnerCosine(ScheduleKind):
    """A half cosine inside each outer step, always from the full rate."""

    kind: Literal["constant_with_inner_cosine"] = "constant_with_inner_cosine"
    final: Final = 0.0
    """Last learning rate of each outer step, as a fraction of the full rate."""

    @property
    def looks_ahead(self) -> bool:
        """Return False: a factor depends on its own outer step alone."""
        return False


RunSchedule = Constant | Cosine | Linear | Wsd
AnySchedule = RunSchedule | GlobalCosine | InnerCosine | ConstantWithInnerCosine
Schedule = Annotated[RunSchedule, Field(discriminator="kind"), Shorthand]
InnerSchedule = Annotated[AnySchedule, Field(discriminator="kind"), Shorthand]


def find_misfit(schedule: AnySchedule, updates: int) -> tuple[str, str] | None:
    """Return the key of a span that does not fit into a run of `updates` updates, and the reason; None if all fit.

    A long warm-up of `constant` or of a cosine is accepted, because stored runs may have one.
    """
    if isinstance(schedule, Constant | Cosine | GlobalCosine):
        return None
    spans = {key: getattr(schedule, key) for key in ("warmup", "decay") if hasattr(schedule, key)}
    lengths = {key: measure(span, updates) for key, span in spans.items()}
    run = f"the run of {_format_updates(updates)}"
    for key, length in lengths.items():
        if length > updates:
            what = "warm-up" if key == "warmup" else key
            return (
                key,
                f"a {what} of {_format_updates(length)} is longer than {run}; give fewer, or a fraction below 1",
            )
    # Parts are compared as they are: rounded to whole updates, they might add up to one more.
    if sum(span if isinstance(span, int) else span * updates for span in spans.values()) > updates + 1e-6:
        both = " and ".join(f"{key} ({spans[key]})" for key in spans)
        return "decay", f"{both} are together longer than {run}; shorten one of them"
    return None


def _format_updates(updates: int) -> str:
    return f"{updates:,} update" if updates == 1 else f"{updates:,} updates"
