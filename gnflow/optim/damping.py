"""A term damping |params - anchor|^2 / 2 of a model, and how it follows what the model's promises came to.

    damping <- 3/2 damping  where the loss fell by less than 1/4 of the promise, 2/3 damping  by more than 3/4

Source:   Levenberg 1944; Marquardt 1963; the factors: Martens 2010, "Deep learning via Hessian-free optimization"
"""

import torch

from gnflow import trees
from gnflow.objective import LocalModel, Params, Scalar, Tokens

LEAST = 1e-8


def add_damping(model: LocalModel, anchor: Params, damping: Scalar) -> LocalModel:
    """The model around `anchor` with the term, in its value, gradient and product alike."""

    def term(displacement: Params) -> Scalar:
        return 0.5 * damping * trees.dot(displacement, displacement)

    def value(params: Params, tokens: Tokens) -> Scalar:
        return model.value(params, tokens) + term(trees.subtract(params, trees.pick(anchor, params)))

    def gradient(params: Params, tokens: Tokens) -> tuple[Params, Scalar]:
        slope, value = model.gradient(params, tokens)
        displacement = trees.subtract(params, trees.pick(anchor, params))
        return trees.along(slope, displacement, damping), value + term(displacement)

    def product(direction: Params, tokens: Tokens) -> Params:
        return trees.along(model.product(direction, tokens), direction, damping)

    return model._replace(value=value, gradient=gradient, product=product)


def adapt(damping: Scalar, gain: Scalar) -> Scalar:
    """More where the model promised too much or nothing that is a number, less where it kept its promise."""
    grown = torch.where(gain >= 0.25, damping, 1.5 * damping)
    return torch.where(gain > 0.75, damping / 1.5, grown).clamp(min=LEAST)
