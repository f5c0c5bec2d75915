"""Convex models of the loss around an anchor, as functions of the logits and their tangent.

    z = f(anchor),  v = J (params - anchor)
    quadratic      L(z) + <l', v> + <v, H v> / 2      gradient J' (l' + H v)
    prox_linear    L(z + v)                           gradient J' l'(z + v)
    whitened       L(z) + <l', v> + <v, S v> / 2      gradient J' (l' + S v),  S v = w v / (V W)

J has a column for each entry of the `params` given. If they are a part of all parameters, the others stay at the
anchor with neither tangent nor gradient, and nothing is propagated through the layers below that part.

J is taken at the anchor, so one pullback serves both terms and there is no double backward. Only the primal is
differentiated in reverse; the tangent is an auxiliary output.

Source:   Abreu et al. 2025, arXiv:2510.09378, sections 3-4
Code:     github.com/natalieabreu/full-gauss-newton llama_train_gn.py @ 0c14e7e
Differs:  closed forms of l' and H for cross-entropy; the reference's penalty on the displacement is left out: it has no
          effect on the gradient of the quadratic model, and the wrong sign in the prox-linear one

Source:   McKay et al. 2026, arXiv:2605.11316 (whitened: the update (J'J)^-1 J' l' of a loss that is no square)
"""

from collections.abc import Callable
from typing import Literal, TypeAlias

from torch import Tensor

from gnflow.models.loss import (
    Targets,
    compute_logit_gradient,
    compute_logit_hessian_product,
    compute_loss_and_probabilities,
    compute_whitened_product,
)
from gnflow.objective import Scalar

Surrogate: TypeAlias = Callable[[Tensor, Tensor, Targets], tuple[Scalar, Tensor]]
Bend: TypeAlias = Callable[[Tensor, Tensor, Targets], Tensor]
Form: TypeAlias = Literal["quadratic", "prox_linear", "whitened"]


def expand_quadratic(logits: Tensor, tangent: Tensor, targets: Targets) -> tuple[Scalar, Tensor]:
    """Return (value, cotangent) of L(z) + <l', v> + <v, H v> / 2."""
    return _expand(logits, tangent, targets, compute_logit_hessian_product)


def expand_whitened(logits: Tensor, tangent: Tensor, targets: Targets) -> tuple[Scalar, Tensor]:
    """Return (value, cotangent) of L(z) + <l', v> + <v, S v> / 2."""
    return _expand(logits, tangent, targets, compute_whitened_product)


def _expand(logits: Tensor, tangent: Tensor, targets: Targets, bent: Bend) -> tuple[Scalar, Tensor]:
    loss, p = compute_loss_and_probabilities(logits, targets)
    slope, bend = compute_logit_gradient(p, targets), bent(p, tangent, targets)
    return loss + (tangent * (slope + 0.5 * bend)).sum(), slope + bend


def expand_prox_linear(logits: Tensor, tangent: Tensor, targets: Targets) -> tuple[Scalar, Tensor]:
    """Return (value, cotangent) of L(z + v)."""
    loss, p = compute_loss_and_probabilities(logits + tangent, targets)
    return loss, compute_logit_gradient(p, targets)


SURROGATES: dict[Form, Surrogate] = {
    "quadratic": expand_quadratic,
    "prox_linear": expand_prox_linear,
    "whitened": expand_whitened,
}
BENDS: dict[Form, Bend] = {
    "quadratic": compute_logit_hessian_product,
    "prox_linear": compute_logit_hessian_product,
    "whitened": compute_whitened_product,
}
"""The second derivative of each form in v, at v = 0."""
