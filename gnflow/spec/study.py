"""A study file: the arms that are compared, how each is tuned, and on which seeds it runs."""

from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from gnflow.spec.base import Expects, Listed, Spec, Unit, refuse

Key = str
Seed = Annotated[int, Field(ge=0, lt=2**32)]
Value = Annotated[object, Expects("a value")]
Overrides = dict[Key, Value]


class Dimension(Spec):
    """The values that trials draw from for one key: a list of values, or a range of numbers."""

    values: Annotated[Listed[Value], Field(min_length=1)] | None = None
    """The list of values to choose from. A list alone may stand in place of this mapping."""
    low: float | None = None
    """Smallest value of the range."""
    high: float | None = None
    """Largest value of the range."""
    scale: Literal["linear", "log"] = "linear"
    """How draws are spread over the range: evenly in the value (`linear`) or in its logarithm (`log`)."""

    @model_validator(mode="after")
    def _check_range(self) -> "Dimension":
        ends = [end for end in (self.low, self.high) if end is not None]
        if len(ends) != (0 if self.values else 2):
            raise refuse("expected a list of values, or a range as in `{low: 0.001, high: 0.1, scale: log}`")
        if ends and ends[0] >= ends[1]:
            raise refuse(f"`low` must be less than `high`, got {ends[0]:g} and {ends[1]:g}", "low")
        if ends and self.scale == "log" and ends[0] <= 0:
            raise refuse(f"scale `log` needs a `low` greater than 0, got {ends[0]:g}", "low")
        return self


class Tuning(Spec):
    """The trials that choose the values of an arm before its seeds are run."""

    method: Literal["grid", "random", "sobol"] = "sobol"
    """How trials cover the space: `grid`, all combinations of lists; `random`, independent draws; `sobol`, a scrambled
    Sobol sequence."""
    trials: Annotated[int, Field(ge=0), Unit("runs")] | None = None
    """Number of trials for each arm; 0 leaves an arm as it is. `grid` does not take it, since it runs every
    combination."""
    seed: Seed = 0
    """Seed of the draws, and also `training.seed` of every trial."""
    set: Overrides = Field(default_factory=dict)
    """Overrides that apply to trials only."""
    space: dict[Key, Dimension] = Field(default_factory=dict)
    """The values to draw from, by dotted key."""

    def merge_over(self, base: "Tuning | None") -> "Tuning":
        """Combine this with `base`: fields given here win, and `set` and `space` are merged key by key."""
        if base is None:
            return self
        own = {name: getattr(self, name) for name in self.model_fields_set}
        both = {"set": {**base.set, **self.set}, "space": {**base.space, **self.space}}
        return base.model_copy(update=own | both)


class Arm(Spec):
    """One of the methods that are compared."""

    spec: Annotated[str, Field(min_length=1)]
    """Spec of the arm, relative to the study file. A path alone may stand in place of this mapping."""
    set: Overrides = Field(default_factory=dict)
    """Overrides by dotted key, as with `--set`."""
    tuning: Tuning | None = None
    """Keys in which the tuning of this arm differs from that of the study."""


class Study(Spec):
    """Arms, seeds, tuning and targets."""

    name: Annotated[str, Field(min_length=1)]
    """Name of the study; it must be that of the folder that holds the file."""
    arms: Annotated[dict[str, Arm], Field(min_length=1)]
    """The arms (methods) that are compared, by name."""
    set: Overrides = Field(default_factory=dict)
    """Overrides for every run of every arm; the overrides of an arm come after them."""
    seeds: Annotated[Listed[Seed], Field(min_length=1)]
    """Seeds (`training.seed`) that each arm runs with."""
    tuning: Tuning | None = None
    """How every arm is tuned. Default: arms run as they are."""
    targets: Annotated[Listed[float], Field(min_length=1)]
    """Values of `loss/held_out` at which arms are compared. Runs stop at the lowest."""
    reference: str | None = None
    """The arm that the others are compared to. Default: the one with the fewest steps."""

    @property
    def target(self) -> float:
        """The lowest target, at which runs stop."""
        return min(self.targets)

    @field_validator("seeds", "targets")
    @classmethod
    def _refuse_repetitions(cls, values: tuple[float, ...]) -> tuple[float, ...]:
        for index, value in enumerate(values):
            if value in values[:index]:
                raise refuse(f"{value} is given twice", index)
        return values
