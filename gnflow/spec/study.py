"""A study file: the arms that are compared, how each is tuned, and on which seeds it runs."""

from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from gnflow.spec.base import Expects, Listed, Rate, Spec, Unit, refuse

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
    target: float | None = None
    """Value of `loss/held_out` at which trials stop, and to which their steps are counted. One below the targets of the
    study leaves a margin for other seeds. Default: the lowest target of the study."""
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


class Widening(Spec):
    """Trials that `gnflow study widen` added to an arm, beyond the edge of ranges."""

    trials: Annotated[int, Field(ge=1), Unit("runs")]
    """Number of trials that were added."""
    space: Annotated[dict[Key, Dimension], Field(min_length=1)]
    """The ranges beyond the edge, by dotted key; all other keys are drawn from the space of the arm."""


class Widenings(Spec):
    """The file `widened.yaml` beside a study: the trials that were added to it."""

    arms: dict[str, Listed[Widening]]
    """Trials that were added to each arm, in the order in which they were added."""


class Arm(Spec):
    """One of the methods that a study compares."""

    spec: Annotated[str, Field(min_length=1)]
    """Spec of the arm. The path is relative to the study file, and may be given alone in place of this mapping."""
    set: Overrides = Field(default_factory=dict)
    """Overrides for the runs of this arm, by dotted key, as with `--set`."""
    tuning: Tuning | None = None
    """Tuning keys of this arm that differ from those of the study. Default: the tuning of the study."""


class Budget(Spec):
    """How long every run of a study trains; arms are compared by their loss at the end of their schedules."""

    tokens: Annotated[Rate, Unit("tokens")]
    """Training tokens of each run, including those of a line search; rounded up to whole steps."""
    target: Rate | None = None
    """A loss: each arm is tested whether its mean loss at the end is below it (one-sided, p < 0.001). Default: no
    test."""


class Scale(Spec):
    """One size at which every arm is tuned and run."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9-]{1,20}$"), Expects("1 to 20 letters, digits and `-`")]
    """Name of the scale; at it an arm is called `<arm>_<name>`."""
    set: Overrides = Field(default_factory=dict)
    """Overrides for every arm at this scale; the overrides of an arm come after them."""
    budget: Budget | None = None
    """Budget at this scale. Default: that of the study."""


class Study(Spec):
    """A comparison of several methods: its arms, seeds and tuning, and its targets or budget."""

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
    targets: Annotated[Listed[float], Field(min_length=1)] | None = None
    """Values of `loss/held_out` at which arms are compared. Runs stop at the lowest one. Give these or `budget`."""
    budget: Budget | None = None
    """Length of every run. Arms are compared by their loss at the end of their schedules. Give this or `targets`."""
    scales: Listed[Scale] = ()
    """Sizes at which every arm is tuned and run. Default: the one size of the specs."""
    reference: str | None = None
    """The arm to which the others are compared. Default: the arm with the fewest steps, or with the lowest loss."""
    sigma: Annotated[Rate, Unit("nats")] | None = None
    """Known standard deviation of the final loss over seeds. Intervals and tests then use the normal distribution and
    are unpaired (a z-test). Default: it is unknown, and they use Student's t, paired by seed."""

    @property
    def target(self) -> float | None:
        """The lowest target, at which runs stop; None if arms are compared at a budget."""
        return min(self.targets) if self.targets else None

    def find_budget(self, scale: str | None = None) -> float | None:
        """Return the tokens of each run at a scale; None if arms are compared at targets."""
        budget = self._choose_budget(scale)
        return None if budget is None else budget.tokens

    def list_targets(self, scale: str | None = None) -> tuple[float, ...]:
        """List the targets at which arms are compared, or the one that their losses are tested against at a budget."""
        budget = self._choose_budget(scale)
        return self.targets or (() if budget is None or budget.target is None else (budget.target,))

    def _choose_budget(self, scale: str | None) -> Budget | None:
        own = next((each.budget for each in self.scales if each.name == scale), None)
        return own or self.budget

    @model_validator(mode="after")
    def _require_targets_or_budget(self) -> "Study":
        if (self.targets is None) == (self.budget is None):
            what = "both are given" if self.targets else "none is given"
            raise refuse(f"arms are compared at `targets` or at a `budget`, {what}; give one of them", "budget")
        if self.sigma is not None and self.budget is None:
            raise refuse("`sigma` is of the loss at the end of a `budget`; remove it or give one", "sigma")
        tunings = {("tuning",): self.tuning} | {("arms", name, "tuning"): arm.tuning for name, arm in self.arms.items()}
        for where, tuning in tunings.items() if self.budget else ():
            if tuning is not None and tuning.target is not None:
                raise refuse("trials of a study with a `budget` run to its end; remove `target`", (*where, "target"))
        for index, scale in enumerate(self.scales):
            if scale.name in [other.name for other in self.scales[:index]]:
                raise refuse(f"two scales are called `{scale.name}`", "scales")
            if scale.budget is not None and self.budget is None:
                raise refuse("a scale has a `budget` only if the study has one", "scales")
        return self

    @field_validator("seeds", "targets")
    @classmethod
    def _refuse_repetitions(cls, values: tuple[float, ...] | None) -> tuple[float, ...] | None:
        for index, value in enumerate(values or ()):
            if value in (values or ())[:index]:
                raise refuse(f"{value} is given twice", index)
        return values
