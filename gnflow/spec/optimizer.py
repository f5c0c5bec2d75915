"""`optimizer:`: the methods a spec may name."""

from collections.abc import Sequence
from functools import cache
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import Field, Tag, ValidationInfo, field_validator, model_validator

from gnflow.spec.base import (
    PLAIN,
    Count,
    Fraction,
    Listed,
    OrPlain,
    Rate,
    Shorthand,
    Spec,
    Unit,
    later,
    refuse,
)
from gnflow.spec.open import Open
from gnflow.spec.parts import AdamWPart, Rule, own_schedules
from gnflow.spec.rules import AdamWRule, FirstOrder, MuonRule, RmnpRule, SoapFields, SoapRule
from gnflow.spec.schedules import Constant, ConstantWithInnerCosine, InnerSchedule, Schedule


class Method(FirstOrder):
    """A rule as the optimizer of a run, or inside Gauss-Newton: what every one has besides the fields of the rule."""

    microbatches: Annotated[Count, Unit("micro-batches")] = 1
    """Micro-batches averaged into one update."""
    schedule: Schedule = Constant()
    """Factor on the learning rate, and on those of parts that have no schedule of their own. Inside Gauss-Newton the
    outer `schedule` rules instead."""
    clip: Rate | None = None
    """Largest global norm of the gradient; longer ones are scaled down."""
    rules: Listed[Rule] = ()
    """Finer routing by parameter name, tried before the method's own."""

    @property
    def by_modality(self) -> bool:
        """Whether it needs the losses of text and of images apart."""
        return False

    def takes(self, shape: Sequence[int], inside: bool) -> bool:
        """Whether a parameter follows the method's own rule; `inside` says that it is a matrix inside the blocks."""
        return True


class AdamW(Method, AdamWRule):
    """AdamW on every parameter."""


class MethodOfMatrices(Method):
    """A rule for the matrices inside the blocks, as an optimizer."""

    others: Annotated[AdamWPart, Field(), Shorthand] = AdamWPart()
    """The method for embedding, head and vectors."""

    def takes(self, shape: Sequence[int], inside: bool) -> bool:
        """Matrices inside the blocks."""
        return inside


class Muon(MethodOfMatrices, MuonRule):
    """Muon on the matrices inside the blocks; `others` on embedding, head and vectors."""


class Rmnp(MethodOfMatrices, RmnpRule):
    """RMNP on matrices; `others` on the rest. Both published routings are here."""

    routing: Literal["matrices", "all"] = "matrices"
    """`matrices` inside the blocks, as the paper says, or `all` with embedding and head, as its GPT-2 code does."""

    def takes(self, shape: Sequence[int], inside: bool) -> bool:
        """Matrices inside the blocks, or all of them."""
        return len(shape) == 2 if self.routing == "all" else inside


class Soap(MethodOfMatrices, SoapRule):
    """SOAP on the matrices inside the blocks; `others` on embedding, head and vectors."""


class Projected(MethodOfMatrices, SoapFields):
    """SOAP on what is left of several mean gradients after a Fisher-orthogonal projection."""

    if TYPE_CHECKING:

        @property
        def leaves(self) -> int:
            """Mean gradients that are projected."""

    microbatches: Annotated[int, Field(ge=2), Unit("micro-batches")] = 2
    """Micro-batches of one update, dealt out evenly to the mean gradients."""
    beta: Annotated[float, Field(ge=0)] = 1.0
    """Factor on the coefficient of the orthogonal part; 0 is SOAP, the control."""
    beta_bound: Rate = 1.0
    """Largest coefficient, either way."""
    damping: Rate = 0.1
    """Added to the Fisher diagonal, as a fraction of its mean in each matrix."""
    metric: Literal["second_moment", "root"] = "second_moment"
    """The Fisher diagonal: SOAP's second moment, or its root, as in SOAP's own step."""
    statistics: Literal["plain", "folded"] = "plain"
    """The gradient that SOAP's factors are fed with: the mean, or the result of the projection."""
    second_moment: Literal["plain", "folded"] = "folded"
    """The gradient that SOAP's second moment is fed with."""
    layer_step: bool = False
    """Shorten each matrix's gradient to the length that the quadratic model asks for, a factor in [1/2, 1]."""


class FopSoap(Projected):
    """Fisher-orthogonal projection of two half-batches (arXiv:2508.13898), with SOAP's metric and step."""

    leaves: ClassVar[int] = 2
    kind: Literal["fop_soap"] = "fop_soap"


class MlFopSoap(Projected):
    """ML-FOP-SOAP (arXiv:2605.16165), reconstructed from its abstract: the projection folded up a binary tree."""

    kind: Literal["ml_fop_soap"] = "ml_fop_soap"
    microbatches: Annotated[int, Field(ge=2), Unit("micro-batches")] = 8
    """Micro-batches of one update, dealt out evenly to the leaves."""
    leaves: Annotated[int, Field(ge=2, le=1024)] = 8
    """Mean gradients at the bottom of the tree; powers of two make it even. With `modality` there are two."""
    granularity: Literal["matrix", "modality"] = "matrix"
    """Leaves are groups of micro-batches, or the image loss and the text loss of all of them (multimodal data only)."""

    @property
    def by_modality(self) -> bool:
        """Where the leaves are the losses of the modalities."""
        return self.granularity == "modality"

    @model_validator(mode="after")
    def _every_leaf_has_a_microbatch(self) -> "MlFopSoap":
        if self.granularity == "matrix" and self.leaves > self.microbatches:
            raise refuse(f"{self.leaves} leaves need at least as many micro-batches, not {self.microbatches}", "leaves")
        return self


class ConjugateGradients(Spec):
    """Inside Gauss-Newton: its model minimised by damped conjugate gradients, on one batch for each inner step."""

    kind: Literal["cg"] = "cg"
    microbatches: Annotated[Count, Unit("micro-batches")] = 1
    """Micro-batches of one solve; every iteration sees all of them."""
    iterations: Annotated[Count, Unit("curvature products")] = 16
    """Most iterations of one solve. All are computed, and the later ones change nothing once it is truncated."""
    tolerance: Fraction = 0.01
    """Truncate when the residual is this part of the first one; negative curvature truncates too."""
    preconditioner: Literal["none", "adam", "soap"] = "none"
    """None, or the root of the mean of squared gradients, one of each solve: `adam` entry by entry, `soap` in the
    eigenbases of Shampoo's factors for the matrices inside the blocks."""
    beta: Fraction = 0.95
    """Decay of that mean, and of the factors."""
    damping: Annotated[float, Field(ge=0)] = 0.1
    """Factor of half the squared displacement in the model at first; it follows the gain ratio. 0 has no such term."""
    carry: Annotated[float, Field(ge=0, le=1)] = 0.95
    """With `warm_start`: the part of the last solution that the next solve begins with."""


WRITTEN_OUT: dict[type[FirstOrder], type[Method]] = {AdamWRule: AdamW, MuonRule: Muon, RmnpRule: Rmnp, SoapRule: Soap}
"""Rules whose optimizer has a class of its own above."""


@cache
def as_method(rule: type[FirstOrder]) -> type[Method]:
    """The optimizer of a rule: its fields, and those that every optimizer has."""
    if issubclass(rule, Method):
        return rule
    if rule in WRITTEN_OUT:
        return WRITTEN_OUT[rule]
    base = MethodOfMatrices if rule.matrices else Method
    made: type[Method] = type(
        f"{rule.__name__}Method", (base, rule), {"__module__": rule.__module__, "__doc__": rule.__doc__}
    )
    return made


InnerMethod = Method | ConjugateGradients
Inner = Annotated[InnerMethod, Open("optimizers", (FopSoap, MlFopSoap, ConjugateGradients), seen_as=as_method)]


Fresh = Annotated[bool, later(True)]


class GeometricSearch(Spec):
    """The best of alpha = 1, 1/sqrt 2, 1/2, ... by the true loss, or no step at all."""

    kind: Literal["geometric"] = "geometric"
    trials: Annotated[int, Field(ge=1, le=64)] = 5
    """Step lengths tried."""
    microbatches: Annotated[Count, Unit("micro-batches")] = 8
    """That the loss is taken on."""
    fresh: Fresh = True
    """Held aside for the search; otherwise they are the last ones of the solve, which has seen them."""


class NoSearch(Spec):
    """Always the full step."""

    kind: Literal["none"] = "none"


class Decrement(Spec):
    """No search: 1 / (1 + kappa nu) of the way, nu the Newton decrement of the step (arXiv:2511.15019)."""

    kind: Literal["decrement"] = "decrement"
    kappa: Rate = 1.0
    """Self-concordance of the loss, as far as it is known."""
    adaptive: bool = False
    """Let kappa follow the gain ratio, from step to step."""
    microbatches: Annotated[Count, Unit("micro-batches")] = 1
    """The last micro-batches of the solve, on which nu is taken."""


class BracketSearch(Spec):
    """The best of three step lengths around the last one, by the true loss, or none at all."""

    kind: Literal["bracket"] = "bracket"
    microbatches: Annotated[Count, Unit("micro-batches")] = 8
    """That the loss is taken on."""
    fresh: Fresh = True
    """Held aside for the search; otherwise they are the last ones of the solve, which has seen them."""


Search = Annotated[GeometricSearch | Decrement | BracketSearch | NoSearch, Field(discriminator="kind"), Shorthand]


class Ema(Spec):
    """An exponential moving average of the inner iterates of a solve, without its bias towards the first."""

    kind: Literal["ema"] = "ema"
    decay: Fraction = 0.95
    """Weight of an iterate against that of the one after it."""


Part = Annotated[float, Field(ge=0, le=1)]
Average = Annotated[Annotated[Part, Tag(PLAIN)] | Annotated[Ema, Tag("ema")], OrPlain(("ema",))]


class GaussNewton(Spec):
    """Gauss-Newton (arXiv:2510.09378): an inner optimizer on the model linearised at the iterate, then a search."""

    kind: Literal["gauss_newton"] = "gauss_newton"
    objective: Literal["quadratic", "prox_linear", "whitened", "newton"] = "quadratic"
    """Loss of the linearised model: its second-order expansion in the logits, the full cross-entropy, or the expansion
    with the identity over the vocabulary for the Hessian in the logits (arXiv:2605.11316); or of no linearised model,
    `newton`: the loss to second order, whose Hessian need not be positive, a reference for small problems."""
    blocks: Literal["full", "layer"] = "full"
    """Parameters solved for together: all, or embedding, each block and head side by side from the same anchor."""
    inner: Inner = Muon()
    """The optimizer that minimises the model; every one of its steps sees fresh micro-batches."""
    inner_steps: Annotated[Count, Unit("inner updates")] = 64
    """Inner updates in one outer step."""
    schedule: InnerSchedule = ConstantWithInnerCosine()
    """Factor on the inner learning rates, but for parts with a schedule of their own; all inner updates of the run are
    counted."""
    search: Search = GeometricSearch()
    """How far to go towards the point that the inner optimizer found."""
    average: Average = 0.0
    """Part of the inner iterates, the last ones, whose mean the search goes towards; 0 is the last iterate alone. Or
    `ema`, a mean of all that fades."""
    warm_start: bool = True
    """Begin the next inner solve at the point found before the search, not at the iterate."""
    inner_state: Annotated[Literal["kept", "reset"], later("kept")] = "kept"
    """Of the inner optimizer, its count of updates included: kept from one solve to the next, or new for each."""
    damping: Annotated[float, Field(ge=0), later(0.0)] = 0.0
    """Factor of half the squared displacement in the model at first; it follows the gain ratio. 0 has no such term."""
    tangent: Annotated[Literal["exact", "difference"], later("exact")] = "exact"
    """Change of the logits along a displacement: by forward mode, or by one difference of two forward passes, which is
    off by about 1e-3 of it and takes four passes where the exact one takes five."""

    @field_validator("inner")
    @classmethod
    def _fits(cls, inner: InnerMethod, info: ValidationInfo) -> InnerMethod:
        if isinstance(inner, ConjugateGradients):
            if info.data.get("objective") == "prox_linear":
                raise refuse(
                    "`cg` finds the minimum of a quadratic, which the model of objective `prox_linear` is not; "
                    "set `objective: quadratic`, or take a first-order method inside",
                    "kind",
                )
            return inner
        if inner.schedule != Constant():
            raise refuse("an inner optimizer has no schedule of its own; set `optimizer.schedule`", "schedule")
        return inner

    @field_validator("search")
    @classmethod
    def _sees_the_solve(cls, search: Search, info: ValidationInfo) -> Search:
        inner, steps = info.data.get("inner"), info.data.get("inner_steps")
        if isinstance(search, NoSearch) or getattr(search, "fresh", False) or not inner or not steps:
            return search
        if search.microbatches > steps * inner.microbatches:
            raise refuse(
                f"the solve has {steps * inner.microbatches} micro-batches; take at most those", "microbatches"
            )
        return search

    @field_validator("inner_state")
    @classmethod
    def _counts_go_on(cls, state: str, info: ValidationInfo) -> str:
        inner, schedule = info.data.get("inner"), info.data.get("schedule")
        parts = own_schedules(inner.rules, getattr(inner, "others", None)) if isinstance(inner, Method) else ()
        for one in (schedule, *(own for _, own in parts)):
            if state == "reset" and one is not None and one.looks_ahead:
                what = "a part of the run" if isinstance(one, Constant) else f"`{one.kind}`"
                raise refuse(
                    f"a reset takes the count of updates along, and {what} goes on from one solve to the next; "
                    "set `schedule: constant` or `constant_with_inner_cosine`, or keep the state"
                )
        return state

    @field_validator("damping")
    @classmethod
    def _damps_once(cls, damping: float, info: ValidationInfo) -> float:
        if damping and isinstance(info.data.get("inner"), ConjugateGradients):
            raise refuse("`cg` has a damping of its own; set `optimizer.inner.damping`")
        return damping

    @field_validator("tangent")
    @classmethod
    def _linearised_roughly(cls, tangent: str, info: ValidationInfo) -> str:
        if tangent == "difference" and info.data.get("objective") == "newton":
            raise refuse("Newton's model linearises no logits, so there is no tangent of them; set `tangent: exact`")
        if tangent == "difference" and isinstance(info.data.get("inner"), ConjugateGradients):
            raise refuse("directions of `cg` lose their conjugacy by rough products; set `tangent: exact`")
        return tangent


Optimizer = Annotated[Method | GaussNewton, Open("optimizers", (FopSoap, MlFopSoap, GaussNewton), seen_as=as_method)]


def has_rate(optimizer: Method | GaussNewton) -> bool:
    """Whether there is a learning rate for a schedule to act on."""
    return not (isinstance(optimizer, GaussNewton) and isinstance(optimizer.inner, ConjugateGradients))


def has_momentum(optimizer: Method | GaussNewton) -> bool:
    """Whether any part of the parameters follows the direction of a momentum."""
    method = optimizer.inner if isinstance(optimizer, GaussNewton) else optimizer
    if isinstance(method, ConjugateGradients):
        return False
    return any(part.has_momentum for part in (method, *(rule.use for rule in method.rules)))
