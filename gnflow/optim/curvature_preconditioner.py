"""The preconditioner of conjugate gradients that is the Gauss-Newton matrix itself, as far as it is cheap.

    P = Q diag(C + f mean C + damping) Q'     for matrices of linear layers in blocks: C and Q are those of EK-FAC
    P = D + f mean D + damping                for all other parameters: D is an estimate of the diagonal
    f = 0.01;  C, the factors and D are averaged over the solves

The first iteration is then the EK-FAC step with the best length, and the further ones correct what EK-FAC leaves out.
An observation takes two passes for the matrices, which follow one another, and one for the others, all with labels
that the model draws.

Source:   Martens & Grosse 2015, arXiv:1503.05671, section 6.4, and George et al. 2018, arXiv:1806.03884 (the matrix);
          Martens 2010, "Deep learning via Hessian-free optimization", section 4.7 (preconditioning)
Differs:  Martens' preconditioner is the root of a diagonal of squared gradients; this one is the curvature
"""

from collections.abc import Collection
from typing import NamedTuple

import torch

from gnflow import trees
from gnflow.objective import LocalModel, Params, Scalar
from gnflow.optim.bases import turn_back, turn_into
from gnflow.optim.kfac import KfacState, kfac
from gnflow.optim.kronecker import follow_average
from gnflow.optim.means import average_diagonal
from gnflow.optim.observation import Draw, collect_for
from gnflow.optim.protocol import make_counter
from gnflow.optim.stacks import Stacks

FLOOR = 0.01
EKFAC = "ekfac"


class CurvatureState(NamedTuple):
    """The number of solves seen, EK-FAC's state of the matrices (empty without any), and D of all others."""

    observations: Scalar
    matrices: dict[str, KfacState]
    diagonal: Params


class CurvaturePreconditioner:
    """P and its statistics."""

    passes, region, every = 2, "watch", -1

    def __init__(self, beta: float = 0.0, turned: Collection[str] = (), transposed: Collection[str] = ()) -> None:
        self.beta, self.turned, self.transposed = beta, turned, transposed
        self.ekfac = kfac(form="corrected", factor_beta=beta, estimate_every=1)

    def init(self, stacked: Params) -> CurvatureState:
        """Return the state before the first solve."""
        matrices = {name: w for name, w in stacked.items() if w.ndim == 3}
        others = {name: w for name, w in stacked.items() if name not in matrices}
        state = {EKFAC: self.ekfac.init(matrices)._replace(momentum={})} if matrices else {}
        return CurvatureState(make_counter(stacked), state, trees.zeros(others))

    def observe(
        self,
        model: LocalModel,
        order: Stacks,
        gradient: Params,
        batch: torch.Tensor,
        state: CurvatureState,
        draw: Draw,
    ) -> CurvatureState:
        """Measure the curvature of the model at its anchor on a batch."""
        matrices, diagonal = state.matrices, state.diagonal
        if matrices:
            assert self.ekfac.signals is not None
            collect = collect_for(model, order.pick(list(matrices[EKFAC].curvature)), batch, draw)
            matrices = {EKFAC: self.ekfac.signals.observe(collect, matrices[EKFAC])}
        if diagonal:
            seen = order.pick(list(diagonal)).stack(average_diagonal(model, batch, draw))
            diagonal = follow_average(diagonal, seen, self.beta, state.observations)
        return CurvatureState(state.observations + 1, matrices, diagonal)

    def take_scale(self, state: CurvatureState, damping: Scalar) -> Params:
        """Return C or D, each raised by a part of its mean and by the damping."""
        curvature = {**(state.matrices[EKFAC].curvature if state.matrices else {}), **state.diagonal}

        def lift(x: torch.Tensor) -> torch.Tensor:
            mean = x.mean((-2, -1), keepdim=True) if x.ndim == 3 else x.mean()
            # A matrix without any curvature and damping is left as it is.
            raised = x.clamp(min=0) + FLOOR * mean + damping.to(x.dtype)
            return torch.where(raised > 0, raised, 1.0)

        return trees.map_tensors(lift, curvature)

    def apply_inverse(self, residual: Params, scale: Params, state: CurvatureState) -> Params:
        """Return P^-1 residual."""
        if not state.matrices:
            return {name: x / scale[name] for name, x in residual.items()}
        bases = state.matrices[EKFAC].left_basis, state.matrices[EKFAC].right_basis
        turned = turn_into(residual, *bases)
        return turn_back({name: x / scale[name] for name, x in turned.items()}, *bases)
