"""`optimizer:`: the methods a spec may name, and how parameters are routed to them."""

import re
from typing import Annotated, Literal

from pydantic import Field, Strict, field_validator

from gnflow.spec.base import Count, Fraction, Listed, Rate, Shorthand, Spec, Unit, refuse

Beta = Fraction
Decay = Annotated[float, Field(ge=0)]


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


class AdamWRule(Spec):
    """Adam with decoupled weight decay (arXiv:1711.05101)."""

    kind: Literal["adamw"] = "adamw"
    learning_rate: Rate = 3e-3
    """Step size."""
    betas: Annotated[tuple[Beta, Beta], Strict(False)] = (0.9, 0.95)
    """Decay of the first and of the second moment."""
    eps: Rate = 1e-8
    """Added to the root of the second moment."""
    weight_decay: Decay = 0.0
    """Decoupled decay, multiplied by the learning rate."""


class MuonRule(Spec):
    """Momentum orthogonalised by Newton-Schulz; for matrices only."""

    kind: Literal["muon"] = "muon"
    learning_rate: Rate = 0.02
    """Step size."""
    momentum: Beta = 0.95
    """Decay of the momentum."""
    nesterov: bool = True
    """Look one step ahead along the momentum."""
    weight_decay: Decay = 0.0
    """Decoupled decay, multiplied by the learning rate."""
    ns_steps: Annotated[int, Field(ge=1, le=20)] = 5
    """Newton-Schulz iterations."""
    scale: Literal["original", "match_rms"] = "original"
    """Size of the update of an (m, n) matrix: `original` sqrt(max(1, m/n)), `match_rms` 0.2 sqrt(max(m, n))."""


RuleUse = Annotated[AdamWRule | MuonRule, Field(discriminator="kind"), Shorthand]


class Rule(Spec):
    """Sends the parameters whose name matches to one method; the first rule that matches wins."""

    match: Annotated[str, Field(min_length=1)]
    """Regular expression, searched for in the parameter's name."""
    use: RuleUse
    """The method for these parameters."""

    @field_validator("match")
    @classmethod
    def _compiles(cls, pattern: str) -> str:
        try:
            re.compile(pattern)
        except re.error as error:
            raise refuse(f"not a regular expression: {error}") from None
        return pattern


class FirstOrder(Spec):
    """What every method that follows a mean gradient shares."""

    microbatches: Annotated[Count, Unit("micro-batches")] = 1
    """Micro-batches averaged into one update."""
    schedule: Schedule = Constant()
    """Factor on every learning rate. Inside Gauss-Newton the outer `schedule` rules instead."""
    clip: Rate | None = None
    """Largest global norm of the gradient; longer ones are scaled down."""
    rules: Listed[Rule] = ()
    """Finer routing by parameter name, tried before the method's own."""


class AdamW(FirstOrder, AdamWRule):
    """AdamW on every parameter."""


class Muon(FirstOrder, MuonRule):
    """Muon on the matrices inside the blocks; `others` on embedding, head and vectors."""

    others: Annotated[AdamWRule, Field(), Shorthand] = AdamWRule()
    """The method for embedding, head and vectors."""


Inner = Annotated[AdamW | Muon, Field(discriminator="kind"), Shorthand]


class GeometricSearch(Spec):
    """The best of alpha = 1, 1/sqrt 2, 1/2, ... by the true loss on fresh micro-batches, or no step at all."""

    kind: Literal["geometric"] = "geometric"
    trials: Annotated[int, Field(ge=1, le=64)] = 5
    """Step lengths tried."""
    microbatches: Annotated[Count, Unit("micro-batches")] = 8
    """Fresh micro-batches held aside for the search."""


class NoSearch(Spec):
    """Always the full step."""

    kind: Literal["none"] = "none"


Search = Annotated[GeometricSearch | NoSearch, Field(discriminator="kind"), Shorthand]


class GaussNewton(Spec):
    """Gauss-Newton (arXiv:2510.09378): an inner optimizer on the model linearised at the iterate, then a search."""

    kind: Literal["gauss_newton"] = "gauss_newton"
    objective: Literal["quadratic", "prox_linear"] = "quadratic"
    """Loss of the linearised model: its second-order expansion in the logits, or the full cross-entropy."""
    blocks: Literal["full"] = "full"
    """Parameters solved for together."""
    inner: Inner = Muon()
    """The optimizer that minimises the model; every one of its steps sees fresh micro-batches."""
    inner_steps: Annotated[Count, Unit("inner updates")] = 64
    """Inner updates in one outer step."""
    schedule: InnerSchedule = ConstantWithInnerCosine()
    """Factor on the inner learning rates."""
    search: Search = GeometricSearch()
    """How far to go towards the point that the inner optimizer found."""
    average: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Part of the inner iterates, the last ones, whose mean the search goes towards; 0 is the last iterate alone."""
    warm_start: bool = True
    """Begin the next inner solve at the point found before the search, not at the iterate."""

    @field_validator("inner")
    @classmethod
    def _outer_schedule_rules(cls, inner: AdamW | Muon) -> AdamW | Muon:
        if inner.schedule != Constant():
            raise refuse("an inner optimizer has no schedule of its own; set `optimizer.schedule`", "schedule")
        return inner


Optimizer = Annotated[AdamW | Muon | GaussNewton, Field(discriminator="kind"), Shorthand]
