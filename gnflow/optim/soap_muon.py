"""Momentum whitened by SOAP's second moment and then orthogonalised as by Muon.

    M <- M + (1 - b)(G - M),   U <- G + b (M - G)  (Nesterov)  or M
    X <- QL' U QR
    V <- c V + (1 - c) X^2                                        in the eigenbasis
    T <- orthogonal factor of  QL [X / (sqrt V + eps)] QR'
    W <- W - lr (scale T + decay W)                               scale as in `muon.py`
    L <- s L + (1 - s) G G',   R <- s R + (1 - s) G' G
    every f updates:  QL <- qr(L QL), QR <- qr(R QR), columns by falling eigenvalue;  V permuted along

A side longer than `max_precondition_dim` keeps the identity. The first call only fills the momentum and the factors.

Code:     github.com/KellerJordan/modded-nanogpt records/track_3_optimization, pull requests 278 and 321
Differs:  the first call moves nothing, as in SOAP; T is not brought to the norm of U, which the iteration would not see
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal, NamedTuple

from pydantic import Field

from gnflow.objective import Params, Scalar
from gnflow.optim.arguments import described_by
from gnflow.optim.decay import decay_rates
from gnflow.spec.base import Count, Rate, Unit
from gnflow.spec.rules import Beta, Cautious, MatrixMethod, WeightDecay
from gnflow.transform import Schedule, Transform, counter, rate

if TYPE_CHECKING:
    from gnflow.optim.muon import Scale
    from gnflow.optim.newton_schulz import Coefficients, Precision


class SoapMuon(MatrixMethod):
    """Muon on momentum that SOAP's second moment has whitened; for matrices only."""

    factory = "gnflow.optim.soap_muon:soap_muon"
    has_momentum = True
    kind: Literal["soap_muon"] = "soap_muon"
    learning_rate: Rate = 0.02
    """Step size."""
    momentum: Beta = 0.95
    """Decay of the momentum."""
    second_beta: Beta = 0.95
    """Decay of the second moment in the eigenbasis."""
    shampoo_beta: Beta = 0.9
    """Decay of the factors that give the eigenbasis."""
    eps: Rate = 1e-8
    """Added to the root of the second moment."""
    nesterov: bool = True
    """Look one step ahead along the momentum."""
    weight_decay: WeightDecay = 0.0
    """Decoupled decay, multiplied by the learning rate. `cautious` decays only what it moves the way of the update."""
    precondition_frequency: Annotated[Count, Unit("updates")] = 1
    """Updates from one renewal of the eigenbasis to the next."""
    max_precondition_dim: Count = 10_000
    """Longest side of a matrix that gets an eigenbasis; a longer one keeps its own coordinates."""
    ns_steps: Annotated[int, Field(ge=1, le=20)] = 5
    """Newton-Schulz iterations."""
    scale: Literal["original", "match_rms", "spectral"] = "original"
    """Size of the update of an (m, n) matrix: `original` sqrt(max(1, m/n)), `match_rms` 0.2 sqrt(max(m, n)), `spectral`
    sqrt(m/n)."""
    coefficients: Literal["jordan", "polar_express", "convergent"] = "polar_express"
    """Polynomials of the iteration, as in `muon`."""
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    """Type of the numbers in the iteration: `auto` is float32 on a CPU and bfloat16 on a GPU."""

    def smaller(self, part: float) -> SoapMuon:
        """A side that is too long for an eigenbasis stays so."""
        return self.model_copy(update={"max_precondition_dim": max(int(self.max_precondition_dim * part), 1)})


class SoapMuonState(NamedTuple):
    """Calls made, learning rate; momentum, second moment in the eigenbasis; factors and bases of both sides."""

    updates: Scalar
    learning_rate: Scalar
    momentum: Params
    second: Params
    left: Params
    right: Params
    left_basis: Params
    right_basis: Params


@described_by(SoapMuon)
def soap_muon(
    learning_rate: float = 0.02,
    momentum: float = 0.95,
    second_beta: float = 0.95,
    shampoo_beta: float = 0.9,
    eps: float = 1e-8,
    nesterov: bool = True,
    weight_decay: float | Cautious = 0.0,
    precondition_frequency: int = 1,
    max_precondition_dim: int = 10_000,
    ns_steps: int = 5,
    scale: Scale = "original",
    coefficients: Coefficients = "polar_express",
    dtype: Precision = "auto",
    schedule: Schedule | None = None,
) -> Transform[SoapMuonState]:
    """SOAP-Muon for matrices (m, n) and stacks of them (k, m, n). Raises ValueError in `init` for anything else."""
    import torch

    from gnflow import trees
    from gnflow.optim import bases
    from gnflow.optim.momentum import require_matrices
    from gnflow.optim.muon import require_iteration, require_scale, size
    from gnflow.optim.newton_schulz import orthogonalised

    require_scale("soap_muon", scale)
    require_iteration("soap_muon", coefficients, dtype)

    def init(params: Params) -> SoapMuonState:
        require_matrices("soap_muon", params)
        left, right = bases.zero_factors(params, max_precondition_dim)
        moments = trees.zeros(params), trees.zeros(params)
        turned = bases.identities(left), bases.identities(right)
        return SoapMuonState(counter(params), rate(learning_rate, params), *moments, left, right, *turned)

    def averaged(gradients: Params, state: SoapMuonState) -> Params:
        return {name: m + (1 - momentum) * (gradients[name] - m) for name, m in state.momentum.items()}

    def ahead(gradients: Params, average: Params) -> Params:
        return {name: g + momentum * (average[name] - g) for name, g in gradients.items()} if nesterov else average

    def update(gradients: Params, state: SoapMuonState, params: Params) -> tuple[Params, SoapMuonState]:
        live = state.updates > 0
        lr = state.learning_rate if schedule is None else state.learning_rate * schedule(state.updates)
        average = averaged(gradients, state)
        turned = bases.into(ahead(gradients, average), state.left_basis, state.right_basis)
        second = {
            name: torch.where(live, second_beta * v + (1 - second_beta) * turned[name] ** 2, v)
            for name, v in state.second.items()
        }
        white = {name: x / (second[name].sqrt() + eps) for name, x in turned.items()}
        whitened = bases.back(white, state.left_basis, state.right_basis)
        updates = {}
        for name, factor in orthogonalised(whitened, ns_steps, coefficients, dtype).items():
            u, w = size(factor, scale) * factor, params[name]
            updates[name] = -lr * live * (u + decay_rates(weight_decay, u, w) * w)
        fading, fresh = shampoo_beta, 1 - shampoo_beta
        after = state._replace(
            updates=state.updates + 1,
            momentum=average,
            second=second,
            left={
                name: fading * lhs + fresh * gradients[name] @ gradients[name].mT for name, lhs in state.left.items()
            },
            right={
                name: fading * rhs + fresh * gradients[name].mT @ gradients[name] for name, rhs in state.right.items()
            },
        )
        return updates, after

    def refresh(gradients: Params, state: SoapMuonState) -> SoapMuonState:
        calls = bases.calls_when_due(state.updates, precondition_frequency)
        if calls is None:
            return state
        turned, factors = (state.left_basis, state.right_basis), (state.left, state.right)
        _, second, turned = bases.renewed({}, state.second, turned, factors, from_nothing=calls == 1)
        return state._replace(second=second, left_basis=turned[0], right_basis=turned[1])

    return Transform(
        init,
        update,
        refresh,
        precondition_frequency,
        momentum=lambda gradients, state: ahead(gradients, averaged(gradients, state)),
    )
