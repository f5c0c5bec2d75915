"""The section `optimizer:` of a spec: the methods that it may name."""

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
    mark_later,
    refuse,
)
from gnflow.spec.open import Open
from gnflow.spec.parts import AdamWPart, Rule, list_own_schedules
from gnflow.spec.rules import AdamWRule, FirstOrder, MuonRule, RmnpRule, SoapFields, SoapRule
from gnflow.spec.schedules import Constant, ConstantWithInnerCosine, InnerSchedule, Schedule


class Method(FirstOrder):
    """An optimizer made of a rule. These keys come in addition to those of the rule."""

    microbatches: Annotated[Count, Unit("micro-batches")] = 1
    """Micro-batches averaged into one update."""
    schedule: Schedule = Constant()
    """How the learning rates change over the run; parts may have a schedule of their own. Inside Gauss-Newton,
    `optimizer.schedule` is used instead."""
    clip: Rate | None = None
    """Largest global norm of the gradient: a gradient with a larger norm is scaled down to it. Default: no limit."""
    rules: Listed[Rule] = ()
    """Rules that send parameters to other methods by name. They are tried before the method's own routing."""

    @property
    def by_modality(self) -> bool:
        """Whether the method needs separate losses of text and of images."""
        return False

    def takes(self, shape: Sequence[int], inside: bool) -> bool:
        """Return whether a parameter follows the method's own rule. `inside`: it is a matrix inside the blocks."""
        return True


class AdamW(Method, AdamWRule):
    """AdamW on every parameter."""


class MethodOfMatrices(Method):
    """An optimizer that applies a rule to the matrices inside the blocks, and `others` to all other parameters."""

    others: Annotated[AdamWPart, Shorthand] = AdamWPart()
    """The method for all other parameters: embedding, head and vectors."""

    def takes(self, shape: Sequence[int], inside: bool) -> bool:
        """Return whether the parameter is a matrix inside the blocks."""
        return inside


class Muon(MethodOfMatrices, MuonRule):
    """Muon on the matrices inside the blocks; `others` on embedding, head and vectors."""


class Rmnp(MethodOfMatrices, RmnpRule):
    """RMNP on matrices; `others` on the rest. `routing` chooses between the two published ways to select matrices."""

    routing: Literal["matrices", "all"] = "matrices"
    """`matrices` are those inside the blocks, as in the paper; `all` adds embedding and head, as in its GPT-2 code."""

    def takes(self, shape: Sequence[int], inside: bool) -> bool:
        """Return whether the parameter is a matrix inside the blocks, or with routing `all` any matrix."""
        return len(shape) == 2 if self.routing == "all" else inside


class Soap(MethodOfMatrices, SoapRule):
    """SOAP on the matrices inside the blocks; `others` on embedding, head and vectors."""


class Projected(MethodOfMatrices, SoapFields):
    """SOAP on a Fisher-orthogonal combination of several mean gradients."""

    if TYPE_CHECKING:

        @property
        def leaves(self) -> int:
            """Number of mean gradients that the projection combines."""

    microbatches: Annotated[int, Field(ge=2), Unit("micro-batches")] = 2
    """Micro-batches in one update, divided evenly among the mean gradients."""
    beta: Annotated[float, Field(ge=0)] = 1.0
    """Factor on the coefficient of the orthogonal part. 0 gives plain SOAP, which is useful as a control."""
    beta_bound: Rate = 1.0
    """Largest absolute value of that coefficient."""
    damping: Rate = 0.1
    """Added to the Fisher diagonal, as a fraction of the mean of the diagonal in each matrix."""
    metric: Literal["second_moment", "root"] = "second_moment"
    """The Fisher diagonal that the projection uses: SOAP's second moment, or its square root as in SOAP's own step."""
    statistics: Literal["plain", "folded"] = "plain"
    """The gradient that updates SOAP's factors: `plain` is the mean gradient, `folded` the result of the projection."""
    second_moment: Literal["plain", "folded"] = "folded"
    """The gradient that updates SOAP's second moment: `plain` or `folded`, as for `statistics`."""
    layer_step: bool = False
    """Scale each matrix's gradient by the factor in [1/2, 1] that minimises the quadratic model."""


class FopSoap(Projected):
    """Fisher-orthogonal projection of two half-batches (arXiv:2508.13898), with SOAP's metric and step."""

    leaves: ClassVar[int] = 2
    kind: Literal["fop_soap"] = "fop_soap"


class MlFopSoap(Projected):
    """ML-FOP-SOAP (arXiv:2605.16165), reconstructed from its abstract: the projection is applied up a binary tree."""

    kind: Literal["ml_fop_soap"] = "ml_fop_soap"
    microbatches: Annotated[int, Field(ge=2), Unit("micro-batches")] = 8
    """Micro-batches in one update, divided evenly among the leaves of the tree."""
    leaves: Annotated[int, Field(ge=2, le=1024)] = 8
    """Mean gradients at the bottom of the tree; a power of two balances it. Granularity `modality` always uses two."""
    granularity: Literal["matrix", "modality"] = "matrix"
    """Leaves are groups of micro-batches (`matrix`), or the losses of text and images (`modality`; multimodal data)."""

    @property
    def by_modality(self) -> bool:
        """Whether the leaves are the losses of the modalities."""
        return self.granularity == "modality"

    @model_validator(mode="after")
    def _require_enough_microbatches(self) -> "MlFopSoap":
        if self.granularity == "matrix" and self.leaves > self.microbatches:
            raise refuse(f"{self.leaves} leaves need at least as many micro-batches, not {self.microbatches}", "leaves")
        return self


class ConjugateGradients(Spec):
    """Damped conjugate gradients as inner optimizer of Gauss-Newton. Each inner step solves on a batch of its own."""

    kind: Literal["cg"] = "cg"
    microbatches: Annotated[Count, Unit("micro-batches")] = 1
    """Micro-batches in one solve; every iteration uses all of them."""
    iterations: Annotated[Count, Unit("curvature products")] = 16
    """Largest number of iterations in one solve. All are computed; those after truncation change nothing."""
    tolerance: Fraction = 0.01
    """A solve is truncated when its residual falls to this fraction of the first, or at negative curvature."""
    preconditioner: Literal["none", "adam", "soap"] = "none"
    """Preconditioner: the square root of a mean of squared gradients, which each solve updates once. `adam` takes it
    entry by entry; `soap` takes it in the eigenbases of Shampoo's factors, for the matrices inside the blocks."""
    beta: Fraction = 0.95
    """Decay of the preconditioner's mean of squared gradients, and of Shampoo's factors."""
    damping: Annotated[float, Field(ge=0)] = 0.1
    """Initial damping, a factor on half the squared displacement; adapted from the gain ratio. 0 is no damping."""
    carry: Annotated[float, Field(ge=0, le=1)] = 0.95
    """With `warm_start`, the next solve begins at this fraction of the last solution."""


WRITTEN_OUT: dict[type[FirstOrder], type[Method]] = {AdamWRule: AdamW, MuonRule: Muon, RmnpRule: Rmnp, SoapRule: Soap}
"""The rules whose optimizer has a class of its own above."""


@cache
def make_method(rule: type[FirstOrder]) -> type[Method]:
    """Make the optimizer of a rule: a class with the rule's fields and those that every optimizer has."""
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
Inner = Annotated[InnerMethod, Open("optimizers", (FopSoap, MlFopSoap, ConjugateGradients), seen_as=make_method)]


Fresh = Annotated[bool, mark_later(True)]


class GeometricSearch(Spec):
    """Try the step lengths 1, 1/sqrt 2, 1/2, ... and take that with the lowest true loss, or no step if none helps."""

    kind: Literal["geometric"] = "geometric"
    trials: Annotated[int, Field(ge=1, le=64)] = 5
    """Number of step lengths that are tried."""
    microbatches: Annotated[Count, Unit("micro-batches")] = 8
    """Micro-batches used to evaluate each trial step."""
    fresh: Fresh = True
    """Whether the search uses micro-batches of its own. If false, it uses the last ones of the solve."""


class NoSearch(Spec):
    """Always take the full step."""

    kind: Literal["none"] = "none"


class Decrement(Spec):
    """Take 1 / (1 + kappa nu) of the step, without a search; nu is its Newton decrement (arXiv:2511.15019)."""

    kind: Literal["decrement"] = "decrement"
    kappa: Rate = 1.0
    """An estimate of the self-concordance constant of the loss."""
    adaptive: bool = False
    """Adapt kappa after each step from the gain ratio."""
    microbatches: Annotated[Count, Unit("micro-batches")] = 1
    """Micro-batches used to compute nu: the last ones of the solve."""


class BracketSearch(Spec):
    """Try three step lengths around the last one and take that with the lowest true loss, or no step if none helps."""

    kind: Literal["bracket"] = "bracket"
    microbatches: Annotated[Count, Unit("micro-batches")] = 8
    """Micro-batches used to evaluate each trial step."""
    fresh: Fresh = True
    """Whether the search uses micro-batches of its own. If false, it uses the last ones of the solve."""


Search = Annotated[GeometricSearch | Decrement | BracketSearch | NoSearch, Field(discriminator="kind"), Shorthand]


class Ema(Spec):
    """An exponential moving average of the inner iterates of a solve, corrected for its bias towards the first."""

    kind: Literal["ema"] = "ema"
    decay: Fraction = 0.95
    """Weight of an iterate relative to the next one."""


Part = Annotated[float, Field(ge=0, le=1)]
Average = Annotated[Annotated[Part, Tag(PLAIN)] | Annotated[Ema, Tag("ema")], OrPlain(("ema",))]


class GaussNewton(Spec):
    """Gauss-Newton (arXiv:2510.09378): an inner optimizer on the model linearised at the iterate, then a search."""

    kind: Literal["gauss_newton"] = "gauss_newton"
    objective: Literal["quadratic", "prox_linear", "whitened", "newton"] = "quadratic"
    """The loss of the linearised model: `quadratic` expands it to second order in the logits, `prox_linear` keeps the
    full cross-entropy, `whitened` puts the identity in place of the Hessian in the logits (arXiv:2605.11316). `newton`
    expands the loss to second order in the weights, which need not be convex: a reference for small problems."""
    blocks: Literal["full", "layer"] = "full"
    """`full` solves for all parameters together; `layer` solves for embedding, head and each block separately."""
    inner: Inner = Muon()
    """The optimizer that minimises the model. Each of its steps uses new micro-batches."""
    inner_steps: Annotated[Count, Unit("inner updates")] = 64
    """Inner updates in one outer step."""
    schedule: InnerSchedule = ConstantWithInnerCosine()
    """How the inner learning rates change. All inner updates of the run are counted; parts may have a schedule of their
    own."""
    search: Search = GeometricSearch()
    """How the length of the step towards the point that the inner optimizer found is chosen."""
    average: Average = 0.0
    """The search goes towards a mean of the inner iterates. A number is the fraction of them, the last ones, that it
    covers; 0 takes the last iterate alone. `ema` is an exponential moving average of all of them."""
    warm_start: bool = True
    """Begin the next inner solve at the point that the last one found, before the search shortened the step."""
    inner_state: Annotated[Literal["kept", "reset"], mark_later("kept")] = "kept"
    """Whether the inner optimizer keeps its state, its count of updates included, or is reset before each solve."""
    damping: Annotated[float, Field(ge=0), mark_later(0.0)] = 0.0
    """Initial damping, a factor on half the squared displacement; adapted from the gain ratio. 0 is no damping."""
    tangent: Annotated[Literal["exact", "difference"], mark_later("exact")] = "exact"
    """How the change of the logits is computed: `exact` by forward-mode differentiation, `difference` by two forward
    passes, so that an inner step costs four passes instead of five, with about 0.1 % error."""

    @field_validator("inner")
    @classmethod
    def _check_inner(cls, inner: InnerMethod, info: ValidationInfo) -> InnerMethod:
        if isinstance(inner, ConjugateGradients):
            if info.data.get("objective") == "prox_linear":
                raise refuse(
                    "`cg` minimises a quadratic, and the model of objective `prox_linear` is not quadratic; "
                    "set `objective: quadratic`, or use a first-order method inside",
                    "kind",
                )
            return inner
        if inner.schedule != Constant():
            raise refuse("an inner optimizer has no schedule of its own; set `optimizer.schedule`", "schedule")
        return inner

    @field_validator("search")
    @classmethod
    def _check_search(cls, search: Search, info: ValidationInfo) -> Search:
        inner, steps = info.data.get("inner"), info.data.get("inner_steps")
        if isinstance(search, NoSearch) or getattr(search, "fresh", False) or not inner or not steps:
            return search
        if search.microbatches > steps * inner.microbatches:
            raise refuse(
                f"the solve has only {steps * inner.microbatches} micro-batches; give at most that many", "microbatches"
            )
        return search

    @field_validator("inner_state")
    @classmethod
    def _check_inner_state(cls, state: str, info: ValidationInfo) -> str:
        inner, schedule = info.data.get("inner"), info.data.get("schedule")
        parts = list_own_schedules(inner.rules, getattr(inner, "others", None)) if isinstance(inner, Method) else ()
        for one in (schedule, *(own for _, own in parts)):
            if state == "reset" and one is not None and one.looks_ahead:
                what = "a part of the run" if isinstance(one, Constant) else f"`{one.kind}`"
                raise refuse(
                    f"`reset` also resets the count of updates, and {what} counts them over all solves; "
                    "set `schedule: constant` or `constant_with_inner_cosine`, or `inner_state: kept`"
                )
        return state

    @field_validator("damping")
    @classmethod
    def _check_damping(cls, damping: float, info: ValidationInfo) -> float:
        if damping and isinstance(info.data.get("inner"), ConjugateGradients):
            raise refuse("`cg` has its own damping; set `optimizer.inner.damping`")
        return damping

    @field_validator("tangent")
    @classmethod
    def _check_tangent(cls, tangent: str, info: ValidationInfo) -> str:
        if tangent == "difference" and info.data.get("objective") == "newton":
            raise refuse(
                "objective `newton` does not linearise the logits, so there is no tangent; set `tangent: exact`"
            )
        if tangent == "difference" and isinstance(info.data.get("inner"), ConjugateGradients):
            raise refuse(
                "`cg` needs exact products: its directions lose their conjugacy otherwise; set `tangent: exact`"
            )
        return tangent


Optimizer = Annotated[Method | GaussNewton, Open("optimizers", (FopSoap, MlFopSoap, GaussNewton), seen_as=make_method)]


def has_rate(optimizer: Method | GaussNewton) -> bool:
    """Return whether there is a learning rate for a schedule to act on."""
    return not (isinstance(optimizer, GaussNewton) and isinstance(optimizer.inner, ConjugateGradients))


def has_momentum(optimizer: Method | GaussNewton) -> bool:
    """Return whether any part of the parameters follows the direction of a momentum."""
    method = optimizer.inner if isinstance(optimizer, GaussNewton) else optimizer
    if isinstance(method, ConjugateGradients):
        return False
    return any(part.has_momentum for part in (method, *(rule.use for rule in method.rules)))
