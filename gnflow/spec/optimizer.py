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
from gnflow.spec.checks import require_usable
from gnflow.spec.open import Open
from gnflow.spec.parts import AdamWPart, Rule, list_own_schedules
from gnflow.spec.rules import AdamWRule, FirstOrder, MuonRule, RmnpRule, SoapFields, SoapRule
from gnflow.spec.schedules import Constant, ConstantWithInnerCosine, InnerSchedule, Schedule
from gnflow.spec.search import GeometricSearch, NoSearch, Search


class Method(FirstOrder):
    """An optimizer made of a rule. These keys come in addition to those of the rule."""

    microbatches: Annotated[Count, Unit("micro-batches")] = 1
    """Number of micro-batches that are averaged into one update."""
    schedule: Schedule = Constant()
    """Change of the learning rates over the run. Parts may have schedules of their own. Inside Gauss-Newton,
    `optimizer.schedule` is used instead."""
    clip: Rate | None = None
    """Largest global norm of the gradient. A gradient with a larger norm is scaled down to this norm. Parts with a
    `clip` of their own are left out of it. Default: no limit."""
    rules: Listed[Rule] = ()
    """Rules that assign parameters to other methods by name. They come before the method's own choice. Default: no
    rules."""

    @property
    def by_modality(self) -> bool:
        """Whether the method needs separate losses of text and of images."""
        return False

    def takes(self, shape: Sequence[int], inside: bool) -> bool:
        """Return whether a parameter follows the method's own rule. `inside`: it is a matrix inside the blocks."""
        return True


class AdamW(Method, AdamWRule):
    """AdamW for all parameters."""


class MethodOfMatrices(Method):
    """An optimizer that applies a rule to the matrices inside the blocks, and `others` to all other parameters."""

    others: Annotated[AdamWPart, Shorthand] = AdamWPart()
    """The method for all other parameters: embedding, head and vectors."""

    def takes(self, shape: Sequence[int], inside: bool) -> bool:
        """Return whether the parameter is a matrix inside the blocks."""
        return inside


class Muon(MethodOfMatrices, MuonRule):
    """Muon for the matrices inside the blocks; `others` for embedding, head and vectors."""


class Rmnp(MethodOfMatrices, RmnpRule):
    """RMNP for matrices; `others` for the rest. `routing` chooses between the two published ways to select matrices."""

    routing: Literal["matrices", "all"] = "matrices"
    """The matrices that follow RMNP: `matrices` means those inside the blocks, as in the paper; `all` includes
    embedding and head, as in the authors' GPT-2 code."""

    def takes(self, shape: Sequence[int], inside: bool) -> bool:
        """Return whether the parameter is a matrix inside the blocks, or with routing `all` any matrix."""
        return len(shape) == 2 if self.routing == "all" else inside


class Soap(MethodOfMatrices, SoapRule):
    """SOAP for the matrices inside the blocks; `others` for embedding, head and vectors."""


class Projected(MethodOfMatrices, SoapFields):
    """SOAP on a Fisher-orthogonal combination of several mean gradients."""

    if TYPE_CHECKING:

        @property
        def leaves(self) -> int:
            """Number of mean gradients that the projection combines."""

    microbatches: Annotated[int, Field(ge=2), Unit("micro-batches")] = 2
    """Number of micro-batches in one update. They are divided evenly among the mean gradients."""
    beta: Annotated[float, Field(ge=0)] = 1.0
    """Factor on the coefficient of the orthogonal component. 0 gives plain SOAP, which is useful as a control."""
    beta_bound: Rate = 1.0
    """Largest absolute value of the coefficient of the orthogonal component."""
    damping: Rate = 0.1
    """Damping that is added to the Fisher diagonal, as a fraction of the mean of the diagonal in each matrix."""
    metric: Literal["second_moment", "root"] = "second_moment"
    """The Fisher diagonal of the projection: SOAP's second moment, or its square root (`root`) as in SOAP's own
    step."""
    statistics: Literal["plain", "folded"] = "plain"
    """The gradient that updates Shampoo's factors: the mean gradient (`plain`) or the result of the projection
    (`folded`)."""
    second_moment: Literal["plain", "folded"] = "folded"
    """The gradient that updates SOAP's second moment: the mean gradient (`plain`) or the result of the projection
    (`folded`)."""
    layer_step: bool = False
    """Multiply each matrix's gradient by the factor in [1/2, 1] that minimises the quadratic model."""


class FopSoap(Projected):
    """SOAP on the Fisher-orthogonal projection of two half-batches (arXiv:2508.13898), with SOAP's metric."""

    leaves: ClassVar[int] = 2
    kind: Literal["fop_soap"] = "fop_soap"


class MlFopSoap(Projected):
    """ML-FOP-SOAP (arXiv:2605.16165), reconstructed from its abstract: the projection is applied up a binary tree."""

    kind: Literal["ml_fop_soap"] = "ml_fop_soap"
    microbatches: Annotated[int, Field(ge=2), Unit("micro-batches")] = 8
    """Number of micro-batches in one update. They are divided evenly among the leaves of the tree."""
    leaves: Annotated[int, Field(ge=2, le=1024)] = 8
    """Number of mean gradients at the bottom of the tree. A power of two gives a balanced tree. Granularity `modality`
    always has two."""
    granularity: Literal["matrix", "modality"] = "matrix"
    """The gradients at the leaves: those of groups of micro-batches (`matrix`), or those of the text loss and the
    image loss (`modality`, for multimodal data only)."""

    memory: Annotated[Fraction, mark_later(0.0)] = 0.0
    """Decay rate, per step, of a mean of the difference of the two gradients in each merge, which the projection then
    uses in place of the difference; a step is an inner one inside Gauss-Newton. This is our reading of a secondary
    source, since the formula of the paper is not public. 0 means no memory."""

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
    """Damped conjugate gradients as the inner optimizer of Gauss-Newton. Each inner step solves on its own batch."""

    kind: Literal["cg"] = "cg"
    microbatches: Annotated[Count, Unit("micro-batches")] = 1
    """Number of micro-batches in one solve. Every iteration uses all of them."""
    iterations: Annotated[Count, Unit("curvature products")] = 16
    """Largest number of iterations in one solve. All of them are computed; those after truncation change nothing."""
    tolerance: Fraction = 0.01
    """A solve is truncated when its residual is at most this fraction of the first residual, or at negative
    curvature."""
    preconditioner: Literal["none", "adam", "soap", "ekfac"] = "none"
    """Preconditioner: `adam` is the square root of a mean of squared gradients, which each solve updates once; `soap`
    is the same in the eigenbases of Shampoo's factors, for matrices inside the blocks; `ekfac` is EK-FAC's curvature of
    these matrices and the diagonal of the curvature for all else, at the cost of about three gradients a solve; `none`
    means no preconditioner."""
    beta: Fraction = 0.95
    """Decay rate, per solve, of what the preconditioner averages: squared gradients, factors, curvature."""
    damping: Annotated[float, Field(ge=0)] = 0.1
    """Initial damping: the model adds this number x half the squared displacement. It is adapted from the gain ratio.
    0 means no damping."""
    carry: Annotated[float, Field(ge=0, le=1)] = 0.95
    """Fraction of the last solution at which the next solve begins if `optimizer.warm_start` is true."""


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


class Ema(Spec):
    """An exponential moving average of the inner iterates of a solve, corrected for its bias towards the first."""

    kind: Literal["ema"] = "ema"
    decay: Fraction = 0.95
    """Weight of each iterate relative to the next one."""


Part = Annotated[float, Field(ge=0, le=1)]
Average = Annotated[Annotated[Part, Tag(PLAIN)] | Annotated[Ema, Tag("ema")], OrPlain(("ema",))]


class GaussNewton(Spec):
    """Gauss-Newton (arXiv:2510.09378): an inner optimizer on the linearised model, then a step-length search."""

    kind: Literal["gauss_newton"] = "gauss_newton"
    objective: Literal["quadratic", "prox_linear", "whitened", "newton"] = "quadratic"
    """The loss of the linearised model: `quadratic` expands the loss to second order in the logits, `prox_linear`
    keeps the full cross-entropy, and `whitened` replaces the Hessian in the logits by the identity (arXiv:2605.11316).
    `newton` expands the loss to second order in the weights instead; the result may be non-convex and is a reference
    for small problems."""
    blocks: Literal["full", "layer", "prefix"] = "full"
    """`full` solves for all parameters together; `layer` solves for the embedding, each block and the head
    separately. `prefix` is `layer` as in the paper's code: from 11 layers on, the solve of a layer also moves all
    layers whose number begins with its own (1: 10, 11, ...; 2: 20, ...), and then their own solutions are taken."""
    inner: Inner = Muon()
    """The optimizer that minimises the linearised model. Each of its updates uses new micro-batches."""
    inner_steps: Annotated[Count, Unit("inner updates")] = 64
    """Number of inner updates in one outer step."""
    schedule: InnerSchedule = ConstantWithInnerCosine()
    """Change of the inner learning rates, counted over all inner updates of the run. Parts may have schedules of their
    own."""
    search: Search = GeometricSearch()
    """The choice of the step length towards the point that the inner optimizer found."""
    average: Average = 0.0
    """The mean of inner iterates at which the search aims. A number is the fraction of the iterates, counted from the
    last, in the mean; 0 means the last iterate alone. `ema` means an exponential moving average of all iterates."""
    warm_start: Annotated[bool, Field(validate_default=True)] = True
    """Begin each inner solve at the point that the previous solve found, before the search shortened the step. If
    false, each solve begins at the current weights."""
    inner_state: Annotated[Literal["kept", "reset"], mark_later("kept")] = "kept"
    """Whether the inner optimizer keeps its state and its count of updates between solves (`kept`), or begins each
    solve with a new state (`reset`)."""
    damping: Annotated[float, Field(ge=0), mark_later(0.0)] = 0.0
    """Initial damping: the model adds this number x half the squared displacement. It is adapted from the gain ratio.
    0 means no damping."""
    tangent: Annotated[Literal["exact", "difference"], mark_later("exact")] = "exact"
    """Computation of the change of the logits: forward-mode differentiation (`exact`), or the difference of two
    forward passes (`difference`). With `difference`, an inner step costs four passes instead of five, with about 0.1 %
    error."""
    checks: Annotated[Listed[Count], mark_later(())] = ()
    """Inner steps after which the true loss is measured on the micro-batches of the search. The solve ends at the
    first check without improvement and goes back to the best one; the last inner step is a check too. Default: none."""

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

    @field_validator("warm_start")
    @classmethod
    def _check_warm_start(cls, warm: bool, info: ValidationInfo) -> bool:
        if warm and info.data.get("blocks") == "prefix":
            raise refuse(
                "with `blocks: prefix` the paper's code begins each solve at copies of its own, which are not kept "
                "here; set `warm_start: false`"
            )
        return warm

    @field_validator("inner_state")
    @classmethod
    def _check_inner_state(cls, state: str, info: ValidationInfo) -> str:
        inner, schedule = info.data.get("inner"), info.data.get("schedule")
        parts = list_own_schedules(inner.rules, getattr(inner, "others", None)) if isinstance(inner, Method) else ()
        for one in (schedule, *(own for _, own in parts)):
            if state == "reset" and one is not None and one.looks_ahead:
                what = "a fraction of the run" if isinstance(one, Constant) else f"`{one.kind}`"
                raise refuse(
                    f"`reset` also resets the count of updates, but {what} needs the count over all solves; "
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
            raise refuse("objective `newton` does not linearise the logits, so it has no tangent; set `tangent: exact`")
        if tangent == "difference" and isinstance(info.data.get("inner"), ConjugateGradients):
            raise refuse(
                "`cg` needs exact products: its directions lose their conjugacy otherwise; set `tangent: exact`"
            )
        return tangent

    @field_validator("checks")
    @classmethod
    def _check_checks(cls, checks: tuple[int, ...], info: ValidationInfo) -> tuple[int, ...]:
        inner = info.data.get("inner")
        own = list_own_schedules(inner.rules, getattr(inner, "others", None)) if isinstance(inner, Method) else ()
        return require_usable(checks, info.data, [schedule for _, schedule in own])


Optimizer = Annotated[Method | GaussNewton, Open("optimizers", (FopSoap, MlFopSoap, GaussNewton), seen_as=make_method)]
