"""What a group of parameters may follow: the rules that turn gradients into updates."""

from collections.abc import Sequence
from typing import Annotated, ClassVar, Literal, Self, TypeAlias

from pydantic import Field, Strict, Tag, model_validator

from gnflow.spec.base import PLAIN, Count, Fraction, Kind, OrPlain, Rate, Spec, Unit, later, refuse

Beta = Fraction
Decay = Annotated[float, Field(ge=0)]


class Cautious(Spec):
    """Weight decay of only those weights that the update shrinks as well (arXiv:2510.12402)."""

    kind: Literal["cautious"] = "cautious"
    rate: Decay = 0.1
    """Decoupled weight decay: each update shrinks these weights by this times the learning rate."""


WeightDecay = Annotated[Annotated[Decay, Tag(PLAIN)] | Annotated[Cautious, Tag("cautious")], OrPlain(("cautious",))]

Scale: TypeAlias = Literal["original", "match_rms"]
OrthogonalScale: TypeAlias = Literal["original", "match_rms", "spectral"]
Coefficients: TypeAlias = Literal["jordan", "polar_express", "you_jiacheng", "cans", "deepseek_v4", "convergent"]
IterationType: TypeAlias = Literal["auto", "float32", "bfloat16"]
IterationSteps = Annotated[int, Field(ge=1, le=20)]


class FirstOrder(Kind):
    """A rule that turns gradients into updates.

    `factory` takes the fields of the class that names it, by name, and `schedule`; it returns a Transform.
    """

    matrices: ClassVar[bool] = False
    """Whether the rule is for matrices alone, and leaves embedding, head and vectors to `others`."""
    has_momentum: ClassVar[bool] = False
    """Whether the transform of the rule says which momentum an update follows."""
    has_metric: ClassVar[bool] = False
    """Whether the transform of the rule has coordinates for a Fisher-orthogonal projection of matrices."""
    takes_curvature: ClassVar[bool] = False
    """Whether the transform of the rule takes estimates of curvature, which a loss has, but not a model of a loss."""

    @property
    def shown_rate(self) -> float | None:
        """The learning rate, where the rule has one."""
        rate = getattr(self, "learning_rate", None)
        return rate if isinstance(rate, float) else None

    def problem_with(self, shape: Sequence[int]) -> str | None:
        """Why a parameter of this shape cannot follow the rule; None where it can."""
        return None

    def smaller(self, part: float) -> Self:
        """Return the same rule for a model whose sides are shorter by this factor."""
        return self


class MatrixMethod(FirstOrder):
    """A rule for matrices alone."""

    matrices = True
    around = frozenset({"hyperball"})
    hyperball: Annotated[bool, later(False)] = False
    """Keep every matrix at the Frobenius norm that it began with. The learning rate is then the length of a step
    relative to that norm (arXiv:2606.16899)."""

    @model_validator(mode="after")
    def _has_no_decay_on_a_sphere(self) -> Self:
        decay: object = getattr(self, "weight_decay", 0.0)
        if self.hyperball and decay:
            raise refuse(
                "`hyperball` keeps the norm of every matrix, so nothing can decay; set `weight_decay: 0.0`", "hyperball"
            )
        return self


class AdamWRule(FirstOrder):
    """Adam with decoupled weight decay (arXiv:1711.05101)."""

    factory = "gnflow.optim.adamw:adamw"
    kind: Literal["adamw"] = "adamw"
    learning_rate: Rate = 3e-3
    """Learning rate: the size of a step."""
    betas: Annotated[tuple[Beta, Beta], Strict(False)] = (0.9, 0.95)
    """Decay rates of the first and of the second moment."""
    eps: Rate = 1e-8
    """Added to the square root of the second moment, so that no division is by zero."""
    weight_decay: WeightDecay = 0.0
    """Decoupled weight decay: each update also shrinks the weights by this times the learning rate. `cautious` shrinks
    only those that the update shrinks as well."""


class MuonRule(MatrixMethod):
    """Muon: momentum orthogonalised by a Newton-Schulz iteration; for matrices only."""

    factory = "gnflow.optim.muon:muon"
    has_momentum = True
    kind: Literal["muon"] = "muon"
    learning_rate: Rate = 0.02
    """Learning rate: the size of a step."""
    momentum: Beta = 0.95
    """Decay rate of the momentum."""
    nesterov: bool = True
    """Use Nesterov momentum, which looks one step ahead."""
    weight_decay: WeightDecay = 0.0
    """Decoupled weight decay: each update also shrinks the weights by this times the learning rate. `cautious` shrinks
    only those that the update shrinks as well."""
    ns_steps: IterationSteps = 5
    """Number of Newton-Schulz iterations."""
    scale: OrthogonalScale = "original"
    """Factor on the update of an (m, n) matrix: `original` is sqrt(max(1, m/n)), `match_rms` 0.2 sqrt(max(m, n)) and
    `spectral` sqrt(m/n)."""
    coefficients: Coefficients = "jordan"
    """Polynomials of the iteration. `jordan` has one for all steps. `polar_express` (arXiv:2505.16932), `you_jiacheng`
    and `cans` (arXiv:2506.10935) have one for each of 5 steps. `deepseek_v4` is made for 10 steps: 8 as `jordan`, then
    2 as `convergent`, which reaches the orthogonal factor itself, alone in 12 steps."""
    split: Count = 1
    """Number of matrices that are fused along the rows of each weight and orthogonalised one by one, such as 3 for a
    fused query, key and value."""
    second_moment: Annotated[Literal["none", "before", "after"], later("none")] = "none"
    """Divide entries by the square root of a second moment: `before` the iteration, that of the gradients (Muon
    squared, arXiv:2604.09967), or `after` it, that of its results, whose norm is kept (AdaMuon, arXiv:2507.11005)."""
    second_beta: Annotated[Beta, later(0.95)] = 0.95
    """Decay rate of the second moment."""
    eps: Annotated[Rate, later(1e-8)] = 1e-8
    """Added to the square root of the second moment, so that no division is by zero."""
    equalize: Annotated[Literal["none", "rows"], later("none")] = "none"
    """`rows` gives all rows of a matrix the same norm before the iteration (MuonEq-R, arXiv:2603.28254)."""
    dtype: Annotated[IterationType, later("auto")] = "auto"
    """Type of the numbers in the iteration: `auto` is float32 on a CPU and bfloat16 on a GPU."""

    def problem_with(self, shape: Sequence[int]) -> str | None:
        """Why `split` cannot divide the rows of this shape; None where it can."""
        if shape[0] % self.split == 0:
            return None
        return f"muon's `split: {self.split}` does not divide the {shape[0]} rows"


class RmnpRule(MatrixMethod):
    """RMNP: momentum with every row (one output neuron) scaled to norm 1 (arXiv:2603.20527); for matrices only."""

    factory = "gnflow.optim.rmnp:rmnp"
    has_momentum = True
    kind: Literal["rmnp"] = "rmnp"
    learning_rate: Rate = 0.02
    """Learning rate: the size of a step."""
    momentum: Beta = 0.95
    """Decay rate of the momentum."""
    nesterov: bool = True
    """Use Nesterov momentum, which looks one step ahead."""
    weight_decay: WeightDecay = 0.0
    """Decoupled weight decay: each update also shrinks the weights by this times the learning rate. `cautious` shrinks
    only those that the update shrinks as well."""
    scale: Scale = "original"
    """Factor on the update of an (m, n) matrix: `original` is sqrt(max(1, m/n)), `match_rms` 0.2 sqrt(n)."""


class SoapFields(MatrixMethod):
    """The keys that SOAP and the methods built on it share."""

    factory = "gnflow.optim.soap:soap"
    has_metric = True
    learning_rate: Rate = 3e-3
    """Learning rate: the size of a step."""
    betas: Annotated[tuple[Beta, Beta], Strict(False)] = (0.95, 0.95)
    """Decay rates of the first and of the second moment."""
    shampoo_beta: Beta | None = None
    """Decay rate of the factors that give the eigenbasis. Default: that of the second moment."""
    eps: Rate = 1e-8
    """Added to the square root of the second moment, so that no division is by zero."""
    weight_decay: WeightDecay = 0.01
    """Decoupled weight decay: each update also shrinks the weights by this times the learning rate. `cautious` shrinks
    only those that the update shrinks as well."""
    precondition_frequency: Annotated[Count, Unit("updates")] = 10
    """Number of updates between two renewals of the eigenbasis."""
    max_precondition_dim: Count = 10_000
    """Longest side that gets an eigenbasis; along a longer side, a matrix keeps its own coordinates."""
    normalize_gradients: bool = False
    """Scale each update to root mean square 1 before the learning rate is applied."""
    fresh_factors: bool = False
    """Include the current gradient in the factors before the eigenbasis is renewed and that gradient projected
    (arXiv:2607.20548)."""

    def smaller(self, part: float) -> Self:
        """Return the same rule with a lower limit, so that a side too long for an eigenbasis stays too long."""
        return self.model_copy(update={"max_precondition_dim": max(int(self.max_precondition_dim * part), 1)})


class SoapRule(SoapFields):
    """SOAP: Adam in the eigenbasis of Shampoo's factors (arXiv:2409.11321); for matrices only."""

    kind: Literal["soap"] = "soap"
