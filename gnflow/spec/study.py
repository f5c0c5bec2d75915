"""A study file: arms that are compared, how each is tuned, and on which seeds."""

from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from gnflow.spec.base import Expects, Listed, Spec, Unit, refuse

Key = str
Seed = Annotated[int, Field(ge=0, lt=2**32)]
Value = Annotated[object, Expects("a value")]
Overrides = dict[Key, Value]


class Dimension(Spec):
    """What one key may be in a trial: one of a list of values, or a number of a range."""

    values: Annotated[Listed[Value], Field(min_length=1)] | None = None
    """The values to choose from; a list alone means these."""
    low: float | None = None
    """Least value."""
    high: float | None = None
    """Largest value."""
    scale: Literal["linear", "log"] = "linear"
    """Whether equal steps or equal ratios are equally likely."""

    @model_validator(mode="after")
    def _values_or_range(self) -> "Dimension":
        ends = [end for end in (self.low, self.high) if end is not None]
        if len(ends) != (0 if self.values else 2):
            raise refuse("expected a list of values, or a range as in `{low: 0.001, high: 0.1, scale: log}`")
        if ends and ends[0] >= ends[1]:
            raise refuse(f"`low` must be less than `high`, got {ends[0]:g} and {ends[1]:g}", "low")
        if ends and self.scale == "log" and ends[0] <= 0:
            raise refuse(f"scale `log` needs a `low` greater than 0, got {ends[0]:g}", "low")
        return self


class Tuning(Spec):
    """Trials that settle the values of an arm before its seeds are run."""

    method: Literal["grid", "random", "sobol"] = "sobol"
    """How trials are spread over the space: all combinations of lists, independent draws, or a scrambled Sobol set."""
    trials: Annotated[int, Field(ge=0), Unit("runs")] | None = None
    """Trials of each arm; 0 leaves an arm as it is. Not for `grid`, which runs every combination."""
    seed: Seed = 0
    """Seed of the draws, and `training.seed` of every trial."""
    set: Overrides = Field(default_factory=dict)
    """Overrides for trials only."""
    space: dict[Key, Dimension] = Field(default_factory=dict)
    """What is searched, by dotted key."""

    def over(self, base: "Tuning | None") -> "Tuning":
        """These fields where they are given, those of `base` elsewhere; `set` and `space` key by key."""
        if base is None:
            return self
        own = {name: getattr(self, name) for name in self.model_fields_set}
        both = {"set": {**base.set, **self.set}, "space": {**base.space, **self.space}}
        return base.model_copy(update=own | both)


class Arm(Spec):
    """One of the methods that are compared."""

    spec: Annotated[str, Field(min_length=1)]
    """Its spec, relative to the study file. The path alone means this."""
    set: Overrides = Field(default_factory=dict)
    """Overrides by dotted key, as with `--set`."""
    tuning: Tuning | None = None
    """What differs from the tuning of the study."""


class Study(Spec):
    """Arms, seeds, tuning and targets."""

    name: Annotated[str, Field(min_length=1)]
    """The name of the folder that the file is in."""
    arms: Annotated[dict[str, Arm], Field(min_length=1)]
    """The methods, by name."""
    set: Overrides = Field(default_factory=dict)
    """Overrides for every run of every arm; an arm's own come after them."""
    seeds: Annotated[Listed[Seed], Field(min_length=1)]
    """`training.seed` of the runs of each arm."""
    tuning: Tuning | None = None
    """The trials of every arm; without it arms run as they are."""
    targets: Annotated[Listed[float], Field(min_length=1)]
    """Values of `loss/held_out` that arms are compared at; runs stop at the lowest."""
    reference: str | None = None
    """The arm that the others are measured against; the one with fewest steps unless given."""

    @property
    def target(self) -> float:
        """The lowest, where runs stop."""
        return min(self.targets)

    @field_validator("seeds", "targets")
    @classmethod
    def _each_once(cls, values: tuple[float, ...]) -> tuple[float, ...]:
        for index, value in enumerate(values):
            if value in values[:index]:
                raise refuse(f"{value} is given twice", index)
        return values
