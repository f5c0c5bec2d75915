"""The rules that turn gradients into updates."""

from collections.abc import Sequence
from typing import Annotated, ClassVar, Literal, Self, TypeAlias

from pydantic import Field, Strict, Tag, model_validator

from gnflow.spec.base import PLAIN, Count, Fraction, Kind, OrPlain, Rate, Spec, Unit, mark_later, refuse

Beta = Fraction
Decay = Annotated[float, Field(ge=0)]


class Cautious(Spec):
    """Weight decay of only those weights that the update shrinks as well (arXiv:2510.12402)."""

    kind: Literal["cautious"] = "cautious"
    rate: Decay = 0.1
    """Decoupled weight decay: each update also subtracts this number x the learning rate x these weights."""


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
    """Whether the transform of the rule takes estimates of curvature, which need passes of their own."""
    takes_signals: ClassVar[bool] = False
    """Whether the transform of the rule takes statistics of linear layers, which need passes of their own."""

    @property
    def shown_rate(self) -> float | None:
        """The learning rate, or None if the rule has none."""
        rate = getattr(self, "learning_rate", None)
        return rate if isinstance(rate, float) else None

    def find_problem(self, shape: Sequence[int]) -> str | None:
        """Return the reason why a parameter of this shape cannot follow the rule; None if it can."""
        return None

    def smaller(self, part: float) -> Self:
        """Return the same rule for a model whose sides are shorter by this factor."""
        return self


class MatrixMethod(FirstOrder):
    """A rule for matrices alone."""

    matrices = True
    around = frozenset({"hyperball"})
    hyperball: Annotated[bool, mark_later(False)] = False
    """Keep every matrix at the Frobenius norm that it began with. The learning rate is then the length of a step
    relative to that norm (arXiv:2606.16899)."""

    @model_validator(mode="after")
    def _refuse_decay_on_a_sphere(self) -> Self:
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
    """Learning rate: a factor on every update."""
    betas: Annotated[tuple[Beta, Beta], Strict(False)] = (0.9, 0.95)
    """Decay rates of the first and the second moment, per update."""
    eps: Rate = 1e-8
    """Constant that prevents division by zero: it is added to the square root of the second moment."""
    weight_decay: WeightDecay = 0.0
    """Decoupled weight decay: each update also subtracts this number x the learning rate x the weights. 0 means no
    decay. `cautious` shrinks only those weights that the update shrinks as well."""
    nesterov: Annotated[bool, mark_later(False)] = False
    """Mix the gradient into the first moment, which then looks one step ahead: NAdam with decoupled weight decay."""


class MomentumFields(MatrixMethod):
    """The keys that methods of matrices with a momentum share."""

    has_momentum = True
    learning_rate: Rate = 0.02
    """Learning rate: a factor on every update."""
    momentum: Beta = 0.95
    """Decay rate of the momentum, per update."""
    nesterov: bool = True
    """Use Nesterov momentum, which looks one step ahead."""
    weight_decay: WeightDecay = 0.0
    """Decoupled weight decay: each update also subtracts this number x the learning rate x the weights. 0 means no
    decay. `cautious` shrinks only those weights that the update shrinks as well."""


class NewtonSchulzFields(MomentumFields):
    """The keys that methods with a Newton-Schulz iteration share."""

    ns_steps: IterationSteps = 5
    """Number of Newton-Schulz iterations."""
    scale: OrthogonalScale = "original"
    """Factor on the update of an (m, n) matrix: sqrt(max(1, m/n)) for `original`, 0.2 sqrt(max(m, n)) for
    `match_rms`, and sqrt(m/n) for `spectral`."""
    coefficients: Coefficients = "polar_express"
    """Polynomials of the Newton-Schulz iteration. `jordan` uses the same one in all steps. `polar_express`
    (arXiv:2505.16932), `you_jiacheng` and `cans` (arXiv:2506.10935) use a different one in each of 5 steps.
    `deepseek_v4` is made for 10 steps: 8 of `jordan`, then 2 of `convergent`. `convergent` alone reaches the orthogonal
    factor itself in 12 steps."""
    eps: Rate = 1e-8
    """Constant that prevents division by zero: it is added to the square root of the second moment."""
    dtype: IterationType = "auto"
    """Type of the numbers in the iteration: `auto` is float32 on a CPU and bfloat16 on a GPU."""


class SplitFields(NewtonSchulzFields):
    """The keys that Muon and NorMuon share."""

    split: Count = 1
    """Number of matrices that are joined along the rows of each weight and orthogonalised separately, for example 3
    for a fused query, key and value. 1 means that each weight is a single matrix."""

    def find_problem(self, shape: Sequence[int]) -> str | None:
        """Return the reason why `split` cannot divide the rows of this shape; None if it can."""
        if shape[0] % self.split == 0:
            return None
        return f"{self.kind}'s `split: {self.split}` does not divide the {shape[0]} rows"


class MuonRule(SplitFields):
    """Muon: momentum orthogonalised by a Newton-Schulz iteration. For matrices only."""

    factory = "gnflow.optim.muon:muon"
    kind: Literal["muon"] = "muon"
    coefficients: Coefficients = "jordan"
    second_moment: Annotated[Literal["none", "before", "after"], mark_later("none")] = "none"
    """Divide entries by the square root of a second moment: `before` the iteration, that of the gradients (Muon
    squared, arXiv:2604.09967), or `after` it, that of its results, whose norm is kept (AdaMuon, arXiv:2507.11005)."""
    second_beta: Annotated[Beta, mark_later(0.95)] = 0.95
    """Decay rate of the second moment, per update."""
    eps: Annotated[Rate, mark_later(1e-8)] = 1e-8
    equalize: Annotated[Literal["none", "rows"], mark_later("none")] = "none"
    """`rows` gives all rows of a matrix the same norm before the iteration (MuonEq-R, arXiv:2603.28254)."""
    dtype: Annotated[IterationType, mark_later("auto")] = "auto"
    unbiased: Annotated[bool, mark_later(False)] = False
    """Correct the momentum and the gradient for their bias towards 0 before Nesterov's momentum mixes them, as optax
    does. Without `nesterov` it only scales what is orthogonalised, so it is refused."""

    @model_validator(mode="after")
    def _require_nesterov(self) -> Self:
        if self.unbiased and not self.nesterov:
            raise refuse("`unbiased` changes Nesterov's mix alone; set `nesterov: true`, or leave it out", "unbiased")
        return self


class RmnpRule(MomentumFields):
    """RMNP: momentum with every row (one output neuron) scaled to norm 1 (arXiv:2603.20527). For matrices only."""

    factory = "gnflow.optim.rmnp:rmnp"
    kind: Literal["rmnp"] = "rmnp"
    scale: Scale = "original"
    """Factor on the update of an (m, n) matrix: sqrt(max(1, m/n)) for `original`, 0.2 sqrt(n) for `match_rms`."""


class BasisFields(MatrixMethod):
    """The keys that methods with an eigenbasis for every matrix share."""

    precondition_frequency: Annotated[Count, Unit("updates")] = 10
    """Number of updates between two computations of the eigenbasis."""
    max_precondition_dim: Count = 10_000
    """Length of the longest side of a matrix that gets an eigenbasis. A matrix keeps its own coordinates along longer
    sides."""

    def smaller(self, part: float) -> Self:
        """Return the same rule with a lower limit, so that a side too long for an eigenbasis stays too long."""
        return self.model_copy(update={"max_precondition_dim": max(int(self.max_precondition_dim * part), 1)})


class SoapFields(BasisFields):
    """The keys that SOAP and the methods built on it share."""

    factory = "gnflow.optim.soap:soap"
    has_metric = True
    learning_rate: Rate = 3e-3
    """Learning rate: a factor on every update."""
    betas: Annotated[tuple[Beta, Beta], Strict(False)] = (0.95, 0.95)
    """Decay rates of the first and the second moment, per update."""
    shampoo_beta: Beta | None = None
    """Decay rate of Shampoo's factors, whose eigenvectors form the basis. Default: the decay rate of the second
    moment."""
    eps: Rate = 1e-8
    """Constant that prevents division by zero: it is added to the square root of the second moment."""
    weight_decay: WeightDecay = 0.01
    """Decoupled weight decay: each update also subtracts this number x the learning rate x the weights. 0 means no
    decay. `cautious` shrinks only those weights that the update shrinks as well."""
    normalize_gradients: bool = False
    """Scale each update to a root mean square of 1 before the learning rate is applied."""
    fresh_factors: bool = False
    """Add the current gradient to Shampoo's factors before the eigenbasis is computed and the gradient is projected
    onto it (arXiv:2607.20548)."""
    refresh: Annotated[Literal["together", "staggered"], mark_later("together")] = "together"
    """The update at which an eigenbasis is computed again: all in the same update (`together`), or each in its turn, so
    that every update has an equal part of the work (`staggered`)."""
    sides: Annotated[Literal["both", "shorter"], mark_later("both")] = "both"
    """The sides of a matrix that get an eigenbasis. With `shorter`, a square matrix has one on the left."""
    block_size: Annotated[Count | None, mark_later(None)] = None
    """Cut every matrix into blocks, each with eigenbases of its own. The sides of a block have the length of the
    largest divisor of the matrix's side that is at most this number. Default: no blocks."""
    dtype: Annotated[Literal["auto", "bfloat16"], mark_later("auto")] = "auto"
    """Type of the numbers in products of gradients with each other and with bases: `auto` is the type of the gradients.
    Sums, moments, factors and the computation of a basis keep that type in any case."""

    def smaller(self, part: float) -> Self:
        """Return the same rule with lower limits, so that a side too long for an eigenbasis stays too long."""
        block = self.block_size and max(int(self.block_size * part), 1)
        return super().smaller(part).model_copy(update={"block_size": block})


class SoapRule(SoapFields):
    """SOAP: Adam in the eigenbasis of Shampoo's factors (arXiv:2409.11321). For matrices only."""

    kind: Literal["soap"] = "soap"
