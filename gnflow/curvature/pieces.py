"""The objective of a model with the logits of a few tokens at a time: the same mathematics in less memory.

    x, x' = features and their tangent
    for each piece of the tokens:
        z, v = head x, its tangent;  c = the loss's cotangent of z;  pulled back to the head's weights and to x at once
    gradient = sum of the head's + that of the features, by what was pulled back to x

No buffer of the size of all logits is there at any time, in the plain gradient neither, whose c is w (p - y) / W.
"""

from collections.abc import Callable, Sequence
from typing import TypeAlias, cast

import torch
from torch import Tensor

from gnflow import trees
from gnflow.curvature.linearised import Bend, Pulled, Surrogate, pushed
from gnflow.models.loss import Targets, cross_entropy, logit_gradient, pieces, probabilities, weight
from gnflow.models.model import Model, Stage
from gnflow.objective import Objective, Params, Scalar, Tokens

Pull: TypeAlias = Callable[[Callable[[Params], Tensor], Params, Params], Pulled]
"""(function, point, displacement of a part of it) -> (value, cotangent -> (gradient of the part,), tangent)"""

X = "features"
"""What the head takes beside its weights, as if it were one of them."""


def objective(network: Model, count: int, surrogate: Surrogate, bend: Bend, reduced: Model | None = None) -> Objective:
    """In `count` pieces; gradients are those of `reduced`, where it is given."""

    def value(params: Params, tokens: Tokens) -> Scalar:
        inputs, targets = network.split(tokens)
        x = network.features.run(params, inputs)
        total = x.new_zeros(())
        for part, judged in zip(_split(x, count), pieces(targets, count), strict=True):
            total = total + cross_entropy(network.head.run(params, after(part, [total])), judged)
        return total

    def gradient(params: Params, tokens: Tokens) -> tuple[Params, Scalar]:
        return _pulled(
            reduced or network, count, _at_rest, _plain, params, trees.pick(params, network.moving), tokens
        )  # fmt: skip

    def curved(params: Params, anchor: Params, tokens: Tokens) -> tuple[Params, Scalar]:
        displacement = trees.subtract(params, trees.pick(anchor, params))
        return _pulled(network, count, pushed, surrogate, anchor, displacement, tokens)

    def product(direction: Params, anchor: Params, tokens: Tokens) -> Params:
        def bent(logits: Tensor, tangent: Tensor, targets: Targets) -> tuple[Scalar, Tensor]:
            return logits.new_zeros(()), bend(probabilities(logits, targets), tangent, targets)

        image, _ = _pulled(network, count, pushed, bent, anchor, direction, tokens)
        return image

    return Objective(value, gradient, curved, product, lambda tokens: weight(network.split(tokens)[1]))


@torch.library.custom_op("gnflow::after", mutates_args=())
def after(x: Tensor, done: Sequence[Tensor]) -> Tensor:
    """A copy of x that is not made before all of `done` are there: a compiler would work on all pieces at once."""
    return x.clone()


@after.register_fake
def _(x: Tensor, done: Sequence[Tensor]) -> Tensor:
    return torch.empty_like(x)


def _plain(logits: Tensor, tangent: Tensor, targets: Targets) -> tuple[Scalar, Tensor]:
    """A surrogate without a tangent: the loss itself."""
    return cross_entropy(logits, targets), logit_gradient(probabilities(logits, targets), targets)


def _at_rest(function: Callable[[Params], Tensor], point: Params, part: Params) -> Pulled:
    """A `Pull` without a tangent: in its place is the value."""
    value, pullback = torch.func.vjp(lambda p: function({**point, **p}), trees.pick(point, part))  # type: ignore[misc]  # torch types the form with an auxiliary output
    return cast("Pulled", (value, pullback, value))


def _pulled(
    network: Model, count: int, pull: Pull, surrogate: Surrogate, anchor: Params, moving: Params, tokens: Tokens
) -> tuple[Params, Scalar]:
    """(gradient in `moving`, value); what moves lies below the head, in it, or in both."""
    inputs, targets = network.split(tokens)
    below, above = _read(network.features, moving), _read(network.head, moving)
    if below:
        x, pullback, tangent = pull(lambda p: network.features.run(p, inputs), anchor, below)
    else:
        x = tangent = network.features.run(anchor, inputs)
    total, gradient, slopes = x.new_zeros(()), trees.zeros(above), [x.new_zeros(())]
    for part, beside, judged in zip(_split(x, count), _split(tangent, count), pieces(targets, count), strict=True):
        done = [*slopes[-1:], *gradient.values()]
        point = {**_read(network.head, anchor), X: after(part, done)}
        displacement = {**above, X: after(beside, done)} if below else above
        logits, to_head, moved = pull(lambda p: network.head.run(p, p[X]), point, displacement)
        loss, cotangent = surrogate(logits, moved, judged)
        (slope,) = to_head(cotangent)
        total, gradient = total + loss, trees.add(gradient, slope)
        if below:
            slopes.append(slope[X])
    if below:
        (rest,) = pullback(torch.cat(slopes[1:]).view_as(x))
        gradient |= {name: gradient[name] + slope if name in gradient else slope for name, slope in rest.items()}
    return trees.pick(gradient, moving), total


def _read(stage: Stage, params: Params) -> Params:
    return {name: value for name, value in params.items() if name in stage.reads}


def _split(x: Tensor, count: int) -> Sequence[Tensor]:
    """(rows, time, width) -> pieces (tokens, width)"""
    return x.flatten(0, -2).tensor_split(count)
