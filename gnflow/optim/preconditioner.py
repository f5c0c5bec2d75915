"""The preconditioner of conjugate gradients: roots of a mean of squared gradients, one gradient from each solve.

    P = Q (sqrt(v) + floor) Q'      v = the bias-corrected mean of squares, as in Adam; Q = 1, or for matrices in blocks
                                    the eigenbases of Shampoo's factors on both sides, with v in them, as in SOAP

SOAP itself keeps these statistics, without its momentum. It treats vectors as Adam does; here all parameters without
eigenbases are joined into one vector. The bases are renewed at every solve, which costs little beside its products.

Source:   Vyas et al. 2024, arXiv:2409.11321 (statistics)
Code:     github.com/gmbabreu/full-gauss-newton (preconditioning by Adam's second moment)
Differs:  the floor is relative to the root mean square of sqrt(v), since only ratios within P matter; the first
          gradient counts at once, for the factors and then in their basis
"""

from collections.abc import Collection, Mapping, Sequence
from math import prod

import torch

from gnflow import trees
from gnflow.objective import Params
from gnflow.optim.protocol import Fisher
from gnflow.optim.soap import SoapState, soap
from gnflow.optim.stacks import Stacks

FLOOR = 0.1


class Preconditioner:
    """P and its statistics: SOAP's for parameters that are `turned`, Adam's for all others. Trees are by stack."""

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

    def take_roots(self, state: SoapState) -> Params:
        """Return sqrt(v) + floor."""
        root = trees.map_tensors(torch.sqrt, self.fisher.diagonal(state))
        every = trees.flatten(root)
        floor = FLOOR * every.square().mean().sqrt() + torch.finfo(every.dtype).tiny
        return {name: value + floor for name, value in root.items()}

    def apply_inverse(self, residual: Params, roots: Params, state: SoapState) -> Params:
        """Return P^-1 residual."""
        turned = self.fisher.into(residual, state)
        return self.fisher.back({name: x / roots[name] for name, x in turned.items()}, state)


def arrange(shapes: Mapping[str, Sequence[int]], turned: Collection[str]) -> Stacks:
    """Stack the parameters that are `turned` by shape, and join all others into one vector."""
    routes = {name: "turned" if name in turned else "others" for name in shapes}
    return Stacks.by_rule(
        routes, {name: tuple(shape) if name in turned else (prod(shape),) for name, shape in shapes.items()}
    )
