"""Convex models of the loss around an anchor: a tangent, a product in logit space and one vjp.

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
from typing import Literal, TypeAlias, cast

import torch
from torch import Tensor

from gnflow import trees
from gnflow.models.loss import (
    Split,
    Targets,
    compute_cross_entropy,
    compute_logit_gradient,
    compute_logit_hessian_product,
    compute_probabilities,
    compute_whitened_product,
    split,
)
from gnflow.objective import Params, Scalar, Tokens

Logits: TypeAlias = Callable[[Params, Tensor], Tensor]
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
    p = compute_probabilities(logits, targets)
    slope, bend = compute_logit_gradient(p, targets), bent(p, tangent, targets)
    value = compute_cross_entropy(logits, targets) + (tangent * (slope + 0.5 * bend)).sum()
    return value, slope + bend


def expand_prox_linear(logits: Tensor, tangent: Tensor, targets: Targets) -> tuple[Scalar, Tensor]:
    """Return (value, cotangent) of L(z + v)."""
    moved = logits + tangent
    return compute_cross_entropy(moved, targets), compute_logit_gradient(compute_probabilities(moved, targets), targets)


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


def linearise(
    logits: Logits, surrogate: Surrogate, read: Split = split
) -> Callable[[Params, Params, Tokens], tuple[Params, Scalar]]:
    """Make the `Objective.curved` of a surrogate loss on linearised logits. `read` splits a micro-batch."""

    def curved(params: Params, anchor: Params, tokens: Tokens) -> tuple[Params, Scalar]:
        inputs, targets = read(tokens)
        displacement = trees.subtract(params, trees.pick(anchor, params))
        primal, pullback, tangent = _push(lambda p: logits(p, inputs), anchor, displacement)
        value, cotangent = surrogate(primal, tangent, targets)
        (gradient,) = pullback(cotangent)
        return gradient, value

    return curved


def make_curvature_product(
    logits: Logits, bend: Bend, read: Split = split
) -> Callable[[Params, Params, Tokens], Params]:
    """Make the `Objective.product` J' B J direction, where B is the second derivative `bend` in the logits."""

    def product(direction: Params, anchor: Params, tokens: Tokens) -> Params:
        inputs, targets = read(tokens)
        primal, pullback, tangent = _push(lambda p: logits(p, inputs), anchor, direction)
        (image,) = pullback(bend(compute_probabilities(primal, targets), tangent, targets))
        return image

    return product


def _push(
    function: Callable[[Params], Tensor], anchor: Params, displacement: Params
) -> tuple[Tensor, Callable[[Tensor], tuple[Params]], Tensor]:
    """Return (value, pullback, tangent). The reverse pass does not go through the tangent."""

    def push_forward(part: Params) -> tuple[Tensor, Tensor]:
        pushforward = torch.func.jvp(lambda p: function({**anchor, **p}), (part,), (displacement,))
        return cast("tuple[Tensor, Tensor]", pushforward)

    # torch types neither transform by its arguments.
    found = torch.func.vjp(push_forward, trees.pick(anchor, displacement), has_aux=True)
    return cast("tuple[Tensor, Callable[[Tensor], tuple[Params]], Tensor]", found)
