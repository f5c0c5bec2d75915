"""The objective of a model, computed for the logits of a few tokens at a time: the same mathematics in less memory.

    x, x' = features and their tangent
    for each piece of the tokens:
        z, v = head x, its tangent;  c = the loss's cotangent of z;  pulled back to the head's weights and to x at once
    gradient = sum of the head's + that of the features, by what was pulled back to x

No buffer ever has the size of all logits. This holds for the plain gradient too, whose c is w (p - y) / W. With
`recomputed`, the activations of all blocks are never in memory together either.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from gnflow import trees
from gnflow.curvature.barrier import copy_after
from gnflow.curvature.diagonal import add_noise, draw_cotangent, square
from gnflow.curvature.linearised import Bend, Surrogate
from gnflow.curvature.recompute import X, pick_read, push_through
from gnflow.curvature.tangents import Pull, push_exactly, push_nothing
from gnflow.models.loss import (
    Targets,
    compute_cross_entropy,
    compute_logit_gradient,
    compute_probabilities,
    compute_total_weight,
    cut,
)
from gnflow.models.model import Model
from gnflow.objective import Objective, Params, Scalar, Tokens


class Thrift(NamedTuple):
    """The measures that save memory."""

    pieces: int = 1
    """Number of pieces that the logits of a micro-batch are computed in."""
    recomputed: bool = False
    """Return whether the reverse pass computes each block again instead of keeping its activations."""


def build_objective(
    network: Model,
    thrift: Thrift,
    surrogate: Surrogate,
    bend: Bend,
    reduced: Model | None = None,
    pull: Pull = push_exactly,
) -> Objective:
    """Build the objective of `network` with these measures.

    Plain gradients use the network `reduced`, if there is one. Convex models take their tangents by `pull`.
    """
    count = thrift.pieces

    def value(params: Params, tokens: Tokens) -> Scalar:
        inputs, targets = network.split(tokens)
        x = network.features.run(params, inputs)
        total = x.new_zeros(())
        for part, judged in zip(_split(x, count), cut(targets, count), strict=True):
            total = total + compute_cross_entropy(network.head.run(params, copy_after(part, [total])), judged)
        return total

    def gradient(params: Params, tokens: Tokens) -> tuple[Params, Scalar]:
        moving = trees.pick(params, network.moving)
        return _pull_back(reduced or network, thrift, push_nothing, _ignore_tangent, params, moving, tokens)

    def curved(params: Params, anchor: Params, tokens: Tokens) -> tuple[Params, Scalar]:
        displacement = trees.subtract(params, trees.pick(anchor, params))
        return _pull_back(network, thrift, pull, surrogate, anchor, displacement, tokens)

    def product(direction: Params, anchor: Params, tokens: Tokens) -> Params:
        def bend_alone(logits: Tensor, tangent: Tensor, targets: Targets) -> tuple[Scalar, Tensor]:
            return logits.new_zeros(()), bend(compute_probabilities(logits, targets), tangent, targets)

        image, _ = _pull_back(network, thrift, push_exactly, bend_alone, anchor, direction, tokens)
        return image

    def diagonal(params: Params, noise: Tensor, tokens: Tokens) -> Params:
        of = reduced or network
        drawn = of._replace(split=add_noise(of.split, noise))
        moving = trees.pick(params, network.moving)
        return square(_pull_back(drawn, thrift, push_nothing, draw_cotangent, params, moving, tokens)[0])

    return Objective(
        value, gradient, curved, product, lambda tokens: compute_total_weight(network.split(tokens)[1]), diagonal
    )


def _ignore_tangent(logits: Tensor, tangent: Tensor, targets: Targets) -> tuple[Scalar, Tensor]:
    """Serve as a surrogate that ignores its tangent: the loss itself."""
    return compute_cross_entropy(logits, targets), compute_logit_gradient(
        compute_probabilities(logits, targets), targets
    )


def _pull_back(
    network: Model, thrift: Thrift, pull: Pull, surrogate: Surrogate, anchor: Params, moving: Params, tokens: Tokens
) -> tuple[Params, Scalar]:
    """Return (gradient in `moving`, value). The moving parameters may lie below the head, in it, or both."""
    inputs, targets = network.split(tokens)
    below, above = pick_read(network.features, moving), pick_read(network.head, moving)
    if below and thrift.recomputed:
        x, pullback, tangent = push_through(network.layers, pull, anchor, below, inputs)
    elif below:
        x, pullback, tangent = pull(lambda p: network.features.run(p, inputs), anchor, below)
    else:
        x = tangent = network.features.run(anchor, inputs)
    total, gradient, slopes = x.new_zeros(()), trees.zeros(above), [x.new_zeros(())]
    parts = (_split(x, thrift.pieces), _split(tangent, thrift.pieces), cut(targets, thrift.pieces))
    for part, beside, judged in zip(*parts, strict=True):
        done = [*slopes[-1:], *gradient.values()]
        point = {**pick_read(network.head, anchor), X: copy_after(part, done)}
        displacement = {**above, X: copy_after(beside, done)} if below else above
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


def _split(x: Tensor, count: int) -> Sequence[Tensor]:
    """Split (rows, time, width) into pieces (tokens, width)."""
    return x.flatten(0, -2).tensor_split(count)
