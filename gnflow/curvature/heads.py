"""Operators on the head of a model: from features to the loss, or to a convex model of it, and back to the features.

An operator takes the function of the head, a division of its arguments into what moves and the rest, and the targets.
It returns (value, gradient in what moves). `curvature.linearised` has the surrogates.
"""

from collections.abc import Callable
from typing import TypeAlias

import torch
from torch import Tensor

from gnflow.curvature.executor import Function, Tangents, apply, push, push_towards
from gnflow.curvature.linearised import Bend, Surrogate
from gnflow.models.loss import Targets, compute_cross_entropy, compute_probabilities
from gnflow.objective import Params, Scalar

Sloped: TypeAlias = tuple[Scalar, Params]
Operator: TypeAlias = Callable[..., Sloped]


def value(function: Function, point: Params, targets: Targets) -> Scalar:
    """Return the loss."""
    return compute_cross_entropy(apply(function, point), targets)


def gradient(function: Function, moving: Params, rest: Params, targets: Targets) -> Sloped:
    """Return (loss, its gradient)."""
    slope, loss = torch.func.grad_and_value(lambda part: value(function, {**rest, **part}, targets))(moving)
    return loss, slope


def expand(surrogate: Surrogate, dual: Callable[..., tuple[Tensor, Tangents]] = push_towards) -> Operator:
    """Make the operator of a convex model whose tangent comes from the operator `dual`."""

    def curved(function: Function, moving: Params, rest: Params, goal: Params, targets: Targets) -> Sloped:
        logits, pullback, (tangent,) = torch.func.vjp(
            lambda part: dual(function, part, rest, goal), moving, has_aux=True
        )  # type: ignore[misc]  # torch types the form without an auxiliary output
        loss, cotangent = surrogate(logits, tangent, targets)
        return loss, pullback(cotangent)[0]

    return curved


def expand_by_difference(surrogate: Surrogate) -> Operator:
    """Make the same operator for a tangent by a difference: (head(beside) - head) / h."""

    def curved(function: Function, moving: Params, rest: Params, beside: Params, h: Tensor, targets: Targets) -> Sloped:
        logits, pullback = torch.func.vjp(lambda part: apply(function, {**rest, **part}), moving)  # type: ignore[misc]  # torch types the form with an auxiliary output
        loss, cotangent = surrogate(logits, (apply(function, beside) - logits) / h, targets)
        return loss, pullback(cotangent)[0]

    return curved


def measure(surrogate: Surrogate) -> Callable[..., Scalar]:
    """Make the operator of the value of a convex model alone, without a reverse pass."""

    def curved_value(function: Function, moving: Params, rest: Params, goal: Params, targets: Targets) -> Scalar:
        logits, (tangent,) = push_towards(function, moving, rest, goal)
        return surrogate(logits, tangent, targets)[0]

    return curved_value


def measure_by_difference(surrogate: Surrogate) -> Callable[..., Scalar]:
    """Make the same operator for a tangent by a difference."""

    def curved_value(
        function: Function, moving: Params, rest: Params, beside: Params, h: Tensor, targets: Targets
    ) -> Scalar:
        logits = apply(function, {**rest, **moving})
        return surrogate(logits, (apply(function, beside) - logits) / h, targets)[0]

    return curved_value


def multiply(bend: Bend) -> Operator:
    """Make the operator of a product with the curvature `bend` in the logits. Its value is 0."""

    def bend_alone(logits: Tensor, tangent: Tensor, targets: Targets) -> tuple[Scalar, Tensor]:
        return logits.new_zeros(()), bend(compute_probabilities(logits, targets), tangent, targets)

    expanded = expand(bend_alone, push)

    def product(function: Function, moving: Params, rest: Params, displacement: Params, targets: Targets) -> Sloped:
        return expanded(function, moving, rest, displacement, targets)

    return product
