"""The Jacobian of the logits of one micro-batch in some weights, kept for many products at one point.

    z = f(w)     u -> J' u: a reverse pass     d -> J d: a reverse pass through that one, since J' u is linear in u
    G d = J' H J d,   <d, G d> = <J d, H J d>      H: the Hessian of the loss in z

`Objective.product` computes z for every product, and J d in forward mode. Here z and both passes are recorded once, so
that a product takes two reverse passes and <d, G d> takes one. The recorded activations stay in memory.

Source:   Townsend 2017, "A new trick for calculating Jacobian vector products"
"""

from collections.abc import Collection

import torch
from torch import Tensor

from gnflow.models.loss import compute_logit_hessian_product, compute_probabilities
from gnflow.models.model import Model
from gnflow.objective import Params, Scalar, Tokens


class Jacobian:
    """J at `params`, with a column for each entry of the weights `names`. It is evaluated eagerly."""

    def __init__(self, network: Model, params: Params, names: Collection[str], tokens: Tokens) -> None:
        inputs, self._targets = network.split(tokens)
        with torch.enable_grad():
            self._weights = {name: params[name].detach().requires_grad_() for name in names}
            self._logits = network.compute_logits({**params, **self._weights}, inputs)
            self._cotangent = torch.zeros_like(self._logits, requires_grad=True)
            self._slopes = torch.autograd.grad(
                self._logits, list(self._weights.values()), self._cotangent, create_graph=True
            )
        self._p = compute_probabilities(self._logits.detach(), self._targets)

    def multiply(self, direction: Params) -> Params:
        """Return G d."""
        cotangent = self._bend(self._push(direction))
        slopes = torch.autograd.grad(self._logits, list(self._weights.values()), cotangent, retain_graph=True)
        return dict(zip(self._weights, slopes, strict=True))

    def measure(self, direction: Params) -> Scalar:
        """Return <d, G d>."""
        tangent = self._push(direction)
        return (tangent * self._bend(tangent)).sum()

    def _push(self, direction: Params) -> Tensor:
        """Return J d, shaped like the logits."""
        along = [direction[name] for name in self._weights]
        return torch.autograd.grad(self._slopes, self._cotangent, along, retain_graph=True)[0]

    def _bend(self, tangent: Tensor) -> Tensor:
        """Return H v."""
        return compute_logit_hessian_product(self._p, tangent, self._targets)
