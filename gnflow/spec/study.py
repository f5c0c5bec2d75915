"""A study file: the arms that are compared, how each is tuned, and on which seeds it runs."""

from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from gnflow.spec.base import Expects, Listed, Rate, Spec, Unit, refuse

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

    def over(self, base: "Tuning | None") -> "Tuning":
        """Combine this with `base`: fields given here win, and `set` and `space` are merged key by key."""
        if base is None:
            return self
        own = {name: getattr(self, name) for name in self.model_fields_set}
        both = {"set": {**base.set, **self.set}, "space": {**base.space, **self.space}}
        return base.model_copy(update=own | both)


class Widening(Spec):
    """Trials that `gnflow study widen` added to an arm, beyond the edge of ranges."""

    trials: Annotated[int, Field(ge=1), Unit("runs")]
    """Number of trials that were added."""
    space: Annotated[dict[Key, Dimension], Field(min_length=1)]
    """The ranges beyond the edge, by dotted key; all other keys are drawn from the space of the arm."""


class Widenings(Spec):
    """The file `widened.yaml` beside a study: everything that was added to it."""

    arms: dict[str, Listed[Widening]]
    """What was added to each arm, in order."""


class Arm(Spec):
    """One of the methods that are compared."""

    spec: Annotated[str, Field(min_length=1)]
    """Spec of the arm, relative to the study file. A path alone may stand in place of this mapping."""
    set: Overrides = Field(default_factory=dict)
    """Overrides by dotted key, as with `--set`."""
    tuning: Tuning | None = None
    """Keys in which the tuning of this arm differs from that of the study."""


class Budget(Spec):
    """How long every run of a study trains; arms are compared by their loss at the end of their schedules."""

    tokens: Annotated[Rate, Unit("tokens")]
    """Training tokens of each run, including those of a line search; rounded up to whole steps."""


class Scale(Spec):
    """One size at which every arm is tuned and run."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9-]{1,20}$"), Expects("1 to 20 letters, digits and `-`")]
    """Name of the scale; at it an arm is called `<arm>_<name>`."""
    set: Overrides = Field(default_factory=dict)
    """Overrides for every arm at this scale; the overrides of an arm come after them."""
    budget: Budget | None = None
    """Budget at this scale. Default: that of the study."""


class Study(Spec):
    """Arms, seeds, tuning, and the targets or the budget at which arms are compared."""

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
    targets: Annotated[Listed[float], Field(min_length=1)] | None = None
    """Values of `loss/held_out` at which arms are compared. Runs stop at the lowest. Give either these or `budget`."""
    budget: Budget | None = None
    """How long every run trains. Arms are then compared by their loss at the end of their schedules."""
    scales: Listed[Scale] = ()
    """Sizes at which every arm is tuned and run. Default: the one size of the specs."""
    reference: str | None = None
    """The arm that the others are compared to. Default: the one with the fewest steps, or with the lowest loss."""
    sigma: Annotated[Rate, Unit("nats")] | None = None
    """Known standard deviation of the final loss over seeds. Intervals and tests are then of the normal distribution
    and unpaired (a z-test). Default: it is unknown, and they are Student's, paired by seed."""

    @property
    def target(self) -> float | None:
        """The lowest target, at which runs stop; None if arms are compared at a budget."""
        return min(self.targets) if self.targets else None

    def find_budget(self, scale: str | None = None) -> float | None:
        """The tokens of each run at a scale; None if arms are compared at targets."""
        own = next((each.budget for each in self.scales if each.name == scale), None)
        budget = own or self.budget
        return None if budget is None else budget.tokens

    @model_validator(mode="after")
    def _targets_or_budget(self) -> "Study":
        if (self.targets is None) == (self.budget is None):
            what = "both are given" if self.targets else "none is given"
            raise refuse(f"arms are compared at `targets` or at a `budget`, {what}; give one of them", "budget")
        if self.sigma is not None and self.budget is None:
            raise refuse("`sigma` is of the loss at the end of a `budget`; remove it or give one", "sigma")
        for index, scale in enumerate(self.scales):
            if scale.name in [other.name for other in self.scales[:index]]:
                raise refuse(f"two scales are called `{scale.name}`", "scales")
            if scale.budget is not None and self.budget is None:
                raise refuse("a scale has a `budget` only if the study has one", "scales")
        return self

    @field_validator("seeds", "targets")
    @classmethod
    def _each_once(cls, values: tuple[float, ...] | None) -> tuple[float, ...] | None:
        for index, value in enumerate(values or ()):
            if value in (values or ())[:index]:
                raise refuse(f"{value} is given twice", index)
        return values
