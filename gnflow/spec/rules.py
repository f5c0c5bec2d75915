"""What one group of parameters follows, and how groups are chosen by name."""

import re
from collections.abc import Sequence
from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, Strict, Tag, field_validator, model_validator

from gnflow.spec.base import PLAIN, Count, Fraction, Kind, OrPlain, Rate, Spec, Unit, later, refuse
from gnflow.spec.open import Open

Beta = Fraction
Decay = Annotated[float, Field(ge=0)]


class Cautious(Spec):
    """Weight decay of the entries that it moves the way of the update, and of no others (arXiv:2510.12402)."""

    kind: Literal["cautious"] = "cautious"
    rate: Decay = 0.1
    """Decoupled decay, multiplied by the learning rate."""


WeightDecay = Annotated[Annotated[Decay, Tag(PLAIN)] | Annotated[Cautious, Tag("cautious")], OrPlain(("cautious",))]


class FirstOrder(Kind):
    """A rule that turns gradients into updates.

    `factory` takes the fields of the class that names it, by name, and `schedule`; it returns a Transform.
    """

    matrices: ClassVar[bool] = False
    """Whether it is for matrices alone, and leaves embedding, head and vectors to `others`."""
    has_momentum: ClassVar[bool] = False
    """Whether its transform says which momentum an update follows."""
    has_metric: ClassVar[bool] = False
    """Whether its transform has coordinates for a Fisher-orthogonal projection of matrices."""

    @property
    def rate(self) -> float | None:
        """The learning rate, where the rule has one."""
        rate = getattr(self, "learning_rate", None)
        return rate if isinstance(rate, float) else None

    def problem_with(self, shape: Sequence[int]) -> str | None:
        """Why a parameter of this shape cannot follow the rule; None where it can."""
        return None

    def smaller(self, part: float) -> Self:
        """The same for a model whose sides are only this part as long."""
        return self


class MatrixMethod(FirstOrder):
    """A rule for matrices alone."""

    matrices = True
    around = frozenset({"hyperball"})
    hyperball: Annotated[bool, later(False)] = False
    """Keep every matrix at the Frobenius norm that it began with; the learning rate is then the length of a step as a
    part of this norm (arXiv:2606.16899)."""

    @model_validator(mode="after")
    def _nothing_decays_on_a_sphere(self) -> Self:
        decay: object = getattr(self, "weight_decay", 0.0)
        if self.hyperball and decay:
            raise refuse("`hyperball` keeps the norm of every matrix; set `weight_decay: 0.0`", "hyperball")
        return self


class AdamWRule(FirstOrder):
    """Adam with decoupled weight decay (arXiv:1711.05101)."""

    factory = "gnflow.optim.adamw:adamw"
    kind: Literal["adamw"] = "adamw"
    learning_rate: Rate = 3e-3
    """Step size."""
    betas: Annotated[tuple[Beta, Beta], Strict(False)] = (0.9, 0.95)
    """Decay of the first and of the second moment."""
    eps: Rate = 1e-8
    """Added to the root of the second moment."""
    weight_decay: WeightDecay = 0.0
    """Decoupled decay, multiplied by the learning rate. `cautious` decays only what it moves the way of the update."""


class MuonRule(MatrixMethod):
    """Momentum orthogonalised by Newton-Schulz; for matrices only."""

    factory = "gnflow.optim.muon:muon"
    has_momentum = True
    kind: Literal["muon"] = "muon"
    learning_rate: Rate = 0.02
    """Step size."""
    momentum: Beta = 0.95
    """Decay of the momentum."""
    nesterov: bool = True
    """Look one step ahead along the momentum."""
    weight_decay: WeightDecay = 0.0
    """Decoupled decay, multiplied by the learning rate. `cautious` decays only what it moves the way of the update."""
    ns_steps: Annotated[int, Field(ge=1, le=20)] = 5
    """Newton-Schulz iterations."""
    scale: Literal["original", "match_rms", "spectral"] = "original"
    """Size of the update of an (m, n) matrix: `original` sqrt(max(1, m/n)), `match_rms` 0.2 sqrt(max(m, n)), `spectral`
    sqrt(m/n)."""
    coefficients: Literal["jordan", "polar_express", "convergent"] = "jordan"
    """Polynomials of the iteration: `jordan` has one for all steps, `polar_express` one for each
    (arXiv:2505.16932), and `convergent` one that reaches the orthogonal factor itself, for which it takes 12 steps."""
    split: Count = 1
    """Matrices fused along the rows of each weight, orthogonalised one by one: 3 for a fused query, key and value."""
    second_moment: Annotated[Literal["none", "before", "after"], later("none")] = "none"
    """Entries are divided by the root of a second moment: `before` the iteration, of the gradients (Muon squared,
    arXiv:2604.09967), or `after` it, of its results, whose size stays (AdaMuon, arXiv:2507.11005)."""
    second_beta: Annotated[Beta, later(0.95)] = 0.95
    """Decay of the second moment."""
    eps: Annotated[Rate, later(1e-8)] = 1e-8
    """Added to the root of the second moment."""
    equalize: Annotated[Literal["none", "rows"], later("none")] = "none"
    """`rows` gives all rows of a matrix one norm before the iteration (MuonEq-R, arXiv:2603.28254)."""
    dtype: Annotated[Literal["auto", "float32", "bfloat16"], later("auto")] = "auto"
    """Type of the numbers in the iteration: `auto` is float32 on a CPU and bfloat16 on a GPU."""

    def problem_with(self, shape: Sequence[int]) -> str | None:
        """Rows that `split` does not divide."""
        if shape[0] % self.split == 0:
            return None
        return f"muon's `split: {self.split}` does not divide the {shape[0]} rows"


class RmnpRule(MatrixMethod):
    """Momentum with every row, one output neuron, scaled to norm 1 (arXiv:2603.20527); for matrices only."""

    factory = "gnflow.optim.rmnp:rmnp"
    has_momentum = True
    kind: Literal["rmnp"] = "rmnp"
    learning_rate: Rate = 0.02
    """Step size."""
    momentum: Beta = 0.95
    """Decay of the momentum."""
    nesterov: bool = True
    """Look one step ahead along the momentum."""
    weight_decay: WeightDecay = 0.0
    """Decoupled decay, multiplied by the learning rate. `cautious` decays only what it moves the way of the update."""
    scale: Literal["original", "match_rms"] = "original"
    """Size of the update of an (m, n) matrix: `original` sqrt(max(1, m/n)), `match_rms` 0.2 sqrt(n) for each row."""


class SoapFields(MatrixMethod):
    """What SOAP and the methods built on it share."""

    factory = "gnflow.optim.soap:soap"
    has_metric = True
    learning_rate: Rate = 3e-3
    """Step size."""
    betas: Annotated[tuple[Beta, Beta], Strict(False)] = (0.95, 0.95)
    """Decay of the first and of the second moment."""
    shampoo_beta: Beta | None = None
    """Decay of the factors that give the eigenbasis; that of the second moment unless given."""
    eps: Rate = 1e-8
    """Added to the root of the second moment."""
    weight_decay: WeightDecay = 0.01
    """Decoupled decay, multiplied by the learning rate. `cautious` decays only what it moves the way of the update."""
    precondition_frequency: Annotated[Count, Unit("updates")] = 10
    """Updates from one renewal of the eigenbasis to the next."""
    max_precondition_dim: Count = 10_000
    """Longest side of a matrix that gets an eigenbasis; a longer one keeps its own coordinates."""
    normalize_gradients: bool = False
    """Scale each update to root mean square 1, before the learning rate."""
    fresh_factors: bool = False
    """Let a renewal of the eigenbasis see the current gradient before that is projected (arXiv:2607.20548)."""

    def smaller(self, part: float) -> Self:
        """A side that is too long for an eigenbasis stays so."""
        return self.model_copy(update={"max_precondition_dim": max(int(self.max_precondition_dim * part), 1)})


class SoapRule(SoapFields):
    """Adam in the eigenbasis of Shampoo's factors (arXiv:2409.11321); for matrices only."""

    kind: Literal["soap"] = "soap"


RuleUse = Annotated[FirstOrder, Open("optimizers")]


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
