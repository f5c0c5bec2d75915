"""A preconditioner of conjugate gradients: roots of a mean of squared gradients, one gradient from each solve.

    P = Q (sqrt(v) + floor) Q'      v = the bias-corrected mean of squares, as in Adam; Q = 1, or for matrices in blocks
                                    the eigenbases of Shampoo's factors on both sides, with v in them, as in SOAP

SOAP itself keeps these statistics, without its momentum. It treats vectors as Adam does; here all parameters without
eigenbases are joined into one vector. The bases are renewed at every solve, which costs little beside its products.

Source:   Vyas et al. 2024, arXiv:2409.11321 (statistics)
Code:     github.com/gmbabreu/full-gauss-newton (preconditioning by Adam's second moment)
Differs:  the floor is relative to the root mean square of sqrt(v), since only ratios within P matter; the first
          gradient counts at once, for the factors and then in their basis
"""

from collections.abc import Collection

import torch

from gnflow import trees
from gnflow.objective import LocalModel, Params, Scalar
from gnflow.optim.observation import Draw
from gnflow.optim.protocol import Fisher
from gnflow.optim.soap import SoapState, soap
from gnflow.optim.stacks import Stacks

FLOOR = 0.1


class GradientPreconditioner:
    """P and its statistics: SOAP's for parameters that are `turned`, Adam's for all others. Trees are by stack."""

    transposed: Collection[str] = ()
    passes, region, every = 0, "refresh", 1

    def __init__(self, beta: float = 0.95, turned: Collection[str] = ()) -> None:
        self.turned = turned
        self.soap = soap(betas=(0.0, beta), weight_decay=0.0, precondition_frequency=1, fresh_factors=True)
        assert self.soap.metric is not None
        self.fisher: Fisher[SoapState] = self.soap.metric

    def init(self, stacked: Params) -> SoapState:
        """Return the state before the first gradient."""
        return self.soap.init(stacked)._replace(first={})

    def refresh(self, gradient: Params, state: SoapState) -> SoapState:
        """Update the state with the gradient of a further solve."""
        first = not state.updates.is_meta and int(state.updates) == 0
        for _ in range(2 if first else 1):
            turned = self.soap.refresh(gradient, state) if self.soap.refresh else state
            _, state = self.fisher.update(gradient, gradient, gradient, turned, gradient)
        return state

    def observe(
        self,
        model: LocalModel,
        order: Stacks,
        gradient: Params,
        batch: torch.Tensor,
        state: SoapState,
        draw: Draw,
    ) -> SoapState:
        """Update the state with the gradient alone."""
        return self.refresh(order.stack(gradient), state)

    def take_scale(self, state: SoapState, damping: Scalar) -> Params:
        """Return sqrt(v) + floor, whatever the damping is, since sqrt(v) has another unit."""
        root = trees.map_tensors(torch.sqrt, self.fisher.diagonal(state))
        every = trees.flatten(root)
        floor = FLOOR * every.square().mean().sqrt() + torch.finfo(every.dtype).tiny
        return {name: value + floor for name, value in root.items()}

    def apply_inverse(self, residual: Params, scale: Params, state: SoapState) -> Params:
        """Return P^-1 residual."""
        turned = self.fisher.into(residual, state)
        return self.fisher.back({name: x / scale[name] for name, x in turned.items()}, state)
