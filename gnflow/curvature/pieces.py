"""The objective of a model with the logits of a few tokens at a time: the same mathematics in less memory.

    x, x' = features and their tangent
    for each piece of the tokens:
        z, v = head x, its tangent;  c = the loss's cotangent of z;  pulled back to the head's weights and to x at once
    gradient = sum of the head's + that of the features, by what was pulled back to x

No buffer of the size of all logits is there at any time, in the plain gradient neither, whose c is w (p - y) / W.
"""

from collections.abc import Callable, Iterator
from typing import TypeAlias, cast

import torch
from torch import Tensor

from gnflow import trees
from gnflow.curvature.linearised import Bend, Pulled, Surrogate, pushed
from gnflow.models.loss import Targets, cross_entropy, logit_gradient, pieces, probabilities, weight
from gnflow.models.model import Model, Stage
from gnflow.objective import Objective, Params, Scalar, Tokens

Pull: TypeAlias = Callable[[Callable[[Params], Tensor], Params, Params], Pulled]
"""(function, point, displacement of a part of it) -> (function(point), cotangent -> (gradient of the part,), tangent)"""

X = "features"
"""What the head takes beside its weights, as if it were one of them."""


def objective(network: Model, count: int, surrogate: Surrogate, bend: Bend, reduced: Model | None = None) -> Objective:
    """In `count` pieces; gradients are those of `reduced`, where it is given."""

    def value(params: Params, tokens: Tokens) -> Scalar:
        inputs, targets = network.split(tokens)
        x = network.features.run(params, inputs)
        parts = _split(x, targets, count)
        return torch.stack([cross_entropy(network.head.run(params, part), judged) for part, judged in parts]).sum()

    def gradient(params: Params, tokens: Tokens) -> tuple[Params, Scalar]:
        moving = trees.pick(params, network.moving)
        return _pulled(reduced or network, count, _at_rest, _plain, params, moving, tokens)

    def curved(params: Params, anchor: Params, tokens: Tokens) -> tuple[Params, Scalar]:
        displacement = trees.subtract(params, trees.pick(anchor, params))
        return _pulled(network, count, pushed, surrogate, anchor, displacement, tokens)

    def product(direction: Params, anchor: Params, tokens: Tokens) -> Params:
        def bent(logits: Tensor, tangent: Tensor, targets: Targets) -> tuple[Scalar, Tensor]:
            return logits.new_zeros(()), bend(probabilities(logits, targets), tangent, targets)

        image, _ = _pulled(network, count, pushed, bent, anchor, direction, tokens)
        return image

    return Objective(value, gradient, curved, product, lambda tokens: weight(network.split(tokens)[1]))


def _plain(logits: Tensor, tangent: Tensor, targets: Targets) -> tuple[Scalar, Tensor]:
    """A surrogate without a tangent: the loss itself."""
    return cross_entropy(logits, targets), logit_gradient(probabilities(logits, targets), targets)


def _at_rest(function: Callable[[Params], Tensor], point: Params, part: Params) -> Pulled:
    """A `Pull` without a tangent: in its place is the value."""
    value, pullback = torch.func.vjp(lambda p: function({**point, **p}), trees.pick(point, part))
    return cast("Pulled", (value, pullback, value))


def _pulled(
    network: Model, count: int, pull: Pull, surrogate: Surrogate, anchor: Params, moving: Params, tokens: Tokens
) -> tuple[Params, Scalar]:
    inputs, targets = network.split(tokens)
    below, above = _read(network.features, moving), _read(network.head, moving)
    if below:
        x, pullback, tangent = pull(lambda p: network.features.run(p, inputs), anchor, below)
    else:
        x = tangent = network.features.run(anchor, inputs)
    gradient, total, slopes = trees.zeros(above), x.new_zeros(()), []
    tangents = (part for part, _ in _split(tangent, targets, count))
    for (part, judged), beside in zip(_split(x, targets, count), tangents, strict=True):
        point, displacement = {**_read(network.head, anchor), X: part}, {**above, **({X: beside} if below else {})}
        logits, to_head, moved = pull(lambda p: network.head.run(p, p[X]), point, displacement)
        loss, cotangent = surrogate(logits, moved, judged)
        (slope,) = to_head(cotangent)
        if below:
            slopes.append(slope.pop(X))
        gradient, total = trees.add(gradient, slope), total + loss
    if below:
        (rest,) = pullback(torch.cat(slopes).view_as(x))
        gradient |= {name: gradient[name] + slope if name in gradient else slope for name, slope in rest.items()}
    return trees.pick(gradient, moving), total


def _read(stage: Stage, params: Params) -> Params:
    return {name: value for name, value in params.items() if name in stage.reads}


def _split(x: Tensor, targets: Targets, count: int) -> Iterator[tuple[Tensor, Targets]]:
    """(features, targets) of each piece, (tokens, width) and (tokens,)."""
    return zip(x.flatten(0, -2).tensor_split(count), pieces(targets, count), strict=True)
