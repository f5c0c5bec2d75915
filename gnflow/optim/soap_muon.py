"""Momentum that is whitened by SOAP's second moment and then orthogonalised as by Muon.

    M <- M + (1 - b)(G - M),   U <- G + b (M - G)  (Nesterov)  or M
    X <- QL' U QR
    V <- c V + (1 - c) X^2                                        in the eigenbasis
    T <- orthogonal factor of  QL [X / (sqrt V + eps)] QR'
    W <- W - lr (scale T + decay W)                               scale as in `muon.py`
    L <- s L + (1 - s) G G',   R <- s R + (1 - s) G' G
    every f updates:  QL <- qr(L QL), QR <- qr(R QR), columns by falling eigenvalue;  V permuted along

A side longer than `max_precondition_dim` keeps the identity. The first call only fills the momentum and the factors.

Source:   github.com/KellerJordan/modded-nanogpt records/track_3_optimization, pull requests 278 and 321; the parts:
          arXiv:2409.11321 (SOAP), kellerjordan.github.io/posts/muon
Code:     github.com/KellerJordan/modded-nanogpt @ f411b3d3
Differs:  the first call moves nothing, as in SOAP; T is not brought to the norm of U, which would change nothing, since
          the iteration divides by the norm
Use:      to compare with SOAP and Muon: it keeps the factors of the one and runs the iteration of the other, so an
          update costs more than that of either. It trained to a lower loss than both (docs/results/oracle_gap.md)
"""

from __future__ import annotations

from typing import Annotated, Literal, NamedTuple

from gnflow.objective import Params, Scalar
from gnflow.optim.arguments import add_help_of
from gnflow.optim.decay import add_decay
from gnflow.spec.base import Count, Unit
from gnflow.spec.rules import (
    BasisFields,
    Beta,
    Cautious,
    Coefficients,
    IterationType,
    NewtonSchulzFields,
    OrthogonalScale,
)
from gnflow.transform import Schedule, Transform, make_counter, make_rate


class SoapMuonRule(BasisFields, NewtonSchulzFields):
    """Muon on a momentum that SOAP's second moment has whitened; for matrices only."""

    factory = "gnflow.optim.soap_muon:soap_muon"
    kind: Literal["soap_muon"] = "soap_muon"
    precondition_frequency: Annotated[Count, Unit("updates")] = 1
    second_beta: Beta = 0.95
    """Decay rate of the second moment in the eigenbasis, per update."""
    shampoo_beta: Beta = 0.9
    """Decay rate of Shampoo's factors, whose eigenvectors form the basis, per update."""


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


@add_help_of(SoapMuonRule)
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
    scale: OrthogonalScale = "original",
    coefficients: Coefficients = "polar_express",
    dtype: IterationType = "auto",
    schedule: Schedule | None = None,
) -> Transform[SoapMuonState]:
    """Make SOAP-Muon for matrices (m, n) and stacks (k, m, n). Raises ValueError in `init` for anything else."""
    import torch

    from gnflow import trees
    from gnflow.optim import bases
    from gnflow.optim.momentum import average_gradients, choose_followed, require_matrices
    from gnflow.optim.muon import require_iteration, set_size
    from gnflow.optim.newton_schulz import orthogonalise
    from gnflow.optim.soap import Average

    require_iteration("soap_muon", scale, coefficients, dtype)

    def init(params: Params) -> SoapMuonState:
        require_matrices("soap_muon", params)
        left, right = bases.begin_factors(params, max_precondition_dim)
        moments = trees.zeros(params), trees.zeros(params)
        turned = bases.begin_bases(left), bases.begin_bases(right)
        return SoapMuonState(make_counter(params), make_rate(learning_rate, params), *moments, left, right, *turned)

    def look_ahead(gradients: Params, state: SoapMuonState) -> Params:
        mean = average_gradients(gradients, state.momentum, momentum)
        return choose_followed(gradients, mean, momentum, nesterov)

    def update(gradients: Params, state: SoapMuonState, params: Params) -> tuple[Params, SoapMuonState]:
        live = state.updates > 0
        lr = state.learning_rate if schedule is None else state.learning_rate * schedule(state.updates)
        turned = bases.turn_into(look_ahead(gradients, state), state.left_basis, state.right_basis)
        second = {
            name: torch.where(live, second_beta * v + (1 - second_beta) * turned[name] ** 2, v)
            for name, v in state.second.items()
        }
        white = {name: x / (second[name].sqrt() + eps) for name, x in turned.items()}
        whitened = bases.turn_back(white, state.left_basis, state.right_basis)
        updates = {}
        for name, factor in orthogonalise(whitened, ns_steps, coefficients, dtype).items():
            u, w = set_size(factor, scale), params[name]
            updates[name] = -lr * live * add_decay(weight_decay, u, w)

        g = gradients
        after = state._replace(
            updates=state.updates + 1,
            momentum=average_gradients(gradients, state.momentum, momentum),
            second=second,
            left={name: Average(x, g[name]).update(shampoo_beta, g[name].mT) for name, x in state.left.items()},
            right={name: Average(x, g[name].mT).update(shampoo_beta, g[name]) for name, x in state.right.items()},
        )
        return updates, after

    def refresh(gradients: Params, state: SoapMuonState) -> SoapMuonState:
        calls = bases.count_if_due(state.updates, precondition_frequency)
        if calls is None:
            return state
        turned, factors = (state.left_basis, state.right_basis), (state.left, state.right)
        _, second, turned = bases.renew({}, state.second, turned, factors, from_nothing=calls == 1)
        return state._replace(second=second, left_basis=turned[0], right_basis=turned[1])

    return Transform(init, update, refresh, precondition_frequency, momentum=look_ahead)
