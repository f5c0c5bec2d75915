"""What one group of parameters follows, and how groups are chosen by name."""

import re
from typing import Annotated, Literal

from pydantic import Field, Strict, field_validator

from gnflow.spec.base import Count, Fraction, Rate, Shorthand, Spec, Unit, refuse

Beta = Fraction
Decay = Annotated[float, Field(ge=0)]


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
    coefficients: Literal["jordan", "polar_express"] = "jordan"
    """Polynomials of the iteration: one for all steps, or one for each (arXiv:2505.16932)."""
    split: Count = 1
    """Matrices fused along the rows of each weight, orthogonalised one by one: 3 for a fused query, key and value."""


class RmnpRule(Spec):
    """Momentum with every row, one output neuron, scaled to norm 1 (arXiv:2603.20527); for matrices only."""

    kind: Literal["rmnp"] = "rmnp"
    learning_rate: Rate = 0.02
    """Step size."""
    momentum: Beta = 0.95
    """Decay of the momentum."""
    nesterov: bool = True
    """Look one step ahead along the momentum."""
    weight_decay: Decay = 0.0
    """Decoupled decay, multiplied by the learning rate."""
    scale: Literal["original", "match_rms"] = "original"
    """Size of the update of an (m, n) matrix: `original` sqrt(max(1, m/n)), `match_rms` 0.2 sqrt(n) for each row."""


class SoapFields(Spec):
    """What SOAP and the methods built on it share."""

    learning_rate: Rate = 3e-3
    """Step size."""
    betas: Annotated[tuple[Beta, Beta], Strict(False)] = (0.95, 0.95)
    """Decay of the first and of the second moment."""
    shampoo_beta: Beta | None = None
    """Decay of the factors that give the eigenbasis; that of the second moment unless given."""
    eps: Rate = 1e-8
    """Added to the root of the second moment."""
    weight_decay: Decay = 0.01
    """Decoupled decay, multiplied by the learning rate."""
    precondition_frequency: Annotated[Count, Unit("updates")] = 10
    """Updates from one renewal of the eigenbasis to the next."""
    max_precondition_dim: Count = 10_000
    """Longest side of a matrix that gets an eigenbasis; a longer one keeps its own coordinates."""
    normalize_gradients: bool = False
    """Scale each update to root mean square 1, before the learning rate."""
    fresh_factors: bool = False
    """Let a renewal of the eigenbasis see the current gradient before that is projected (arXiv:2607.20548)."""


class SoapRule(SoapFields):
    """Adam in the eigenbasis of Shampoo's factors (arXiv:2409.11321); for matrices only."""

    kind: Literal["soap"] = "soap"


# Methods of matrices alone.
MatrixRule = MuonRule | RmnpRule | SoapRule
RuleUse = Annotated[AdamWRule | MuonRule | RmnpRule | SoapRule, Field(discriminator="kind"), Shorthand]


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
