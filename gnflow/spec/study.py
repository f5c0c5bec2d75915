"""A study file: the arms that are compared, how each is tuned, and on which seeds it runs."""

from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from gnflow.spec.base import Expects, Listed, Spec, Unit, refuse

Key = str
Seed = Annotated[int, Field(ge=0, lt=2**32)]
Value = Annotated[object, Expects("a value")]
Overrides = dict[Key, Value]


class Dimension(Spec):
    """The values of one key that trials choose from: a list of values, or a range of numbers."""

    values: Annotated[Listed[Value], Field(min_length=1)] | None = None
    """The list of values to choose from. A list may also be given alone in place of this mapping."""
    low: float | None = None
    """Smallest value of the range."""
    high: float | None = None
    """Largest value of the range."""
    scale: Literal["linear", "log"] = "linear"
    """Distribution of the draws over the range: uniform in the value (`linear`) or in its logarithm (`log`)."""

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
    """The trials that choose the values of an arm before it runs with its seeds."""

    method: Literal["grid", "random", "sobol"] = "sobol"
    """Choice of the trials: `grid` tries all combinations of lists, `random` makes independent draws, and `sobol` uses
    a scrambled Sobol sequence."""
    trials: Annotated[int, Field(ge=0), Unit("runs")] | None = None
    """Number of trials for each arm. 0 means that the arm is not tuned. `grid` does not accept it, because it tries
    every combination."""
    seed: Seed = 0
    """Seed of the draws, and `training.seed` of every trial."""
    set: Overrides = Field(default_factory=dict)
    """Overrides for trials only, by dotted key."""
    space: dict[Key, Dimension] = Field(default_factory=dict)
    """The values to choose from, by dotted key."""

    def merge_over(self, base: "Tuning | None") -> "Tuning":
        """Combine this with `base`: fields given here win, and `set` and `space` are merged key by key."""
        if base is None:
            return self
        own = {name: getattr(self, name) for name in self.model_fields_set}
        both = {"set": {**base.set, **self.set}, "space": {**base.space, **self.space}}
        return base.model_copy(update=own | both)


class Arm(Spec):
    """One of the methods that a study compares."""

    spec: Annotated[str, Field(min_length=1)]
    """Spec of the arm. The path is relative to the study file, and may be given alone in place of this mapping."""
    set: Overrides = Field(default_factory=dict)
    """Overrides for the runs of this arm, by dotted key, as with `--set`."""
    tuning: Tuning | None = None
    """Tuning keys of this arm that differ from those of the study. Default: the tuning of the study."""


class Study(Spec):
    """A comparison of several methods: its arms, seeds, tuning and targets."""

    name: Annotated[str, Field(min_length=1)]
    """Name of the study. It must be the name of the folder that contains the study file."""
    arms: Annotated[dict[str, Arm], Field(min_length=1)]
    """The arms of the study (the methods that it compares), by name."""
    set: Overrides = Field(default_factory=dict)
    """Overrides for every run of every arm. The overrides of an arm are applied after them."""
    seeds: Annotated[Listed[Seed], Field(min_length=1)]
    """Seeds (`training.seed`) of the runs of each arm."""
    tuning: Tuning | None = None
    """Tuning of every arm. Default: arms are not tuned."""
    targets: Annotated[Listed[float], Field(min_length=1)]
    """Values of `loss/held_out` at which arms are compared. Runs stop at the lowest one."""
    reference: str | None = None
    """The arm to which the others are compared. Default: the arm with the fewest steps."""

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
