"""The term damping |params - anchor|^2 / 2 of a model, and the rule that adapts it after every step.

    damping <- 3/2 damping   if the loss fell by less than 1/4 of the decrease that the model predicted
    damping <- 2/3 damping   if it fell by more than 3/4 of it

Source:   Levenberg 1944; Marquardt 1963; the factors: Martens 2010, "Deep learning via Hessian-free optimization"
"""

import torch

from gnflow import trees
from gnflow.objective import LocalModel, Params, Scalar, Tokens

LEAST = 1e-8


def add_damping(model: LocalModel, anchor: Params, damping: Scalar) -> LocalModel:
    """Add the damping term to the value, the gradient and the product of the model around `anchor`."""

    def compute_term(displacement: Params) -> Scalar:
        return 0.5 * damping * trees.dot(displacement, displacement)

    def value(params: Params, tokens: Tokens) -> Scalar:
        return model.value(params, tokens) + compute_term(trees.subtract(params, trees.pick(anchor, params)))

    def gradient(params: Params, tokens: Tokens) -> tuple[Params, Scalar]:
        slope, value = model.gradient(params, tokens)
        displacement = trees.subtract(params, trees.pick(anchor, params))
        return trees.move_along(slope, displacement, damping), value + compute_term(displacement)

    def product(direction: Params, tokens: Tokens) -> Params:
        return trees.move_along(model.product(direction, tokens), direction, damping)

    return model._replace(value=value, gradient=gradient, product=product, damping=damping)


def adapt(damping: Scalar, gain: Scalar) -> Scalar:
    """Adapt the damping to a gain ratio: more if the ratio is small or not a number, less if it is close to 1."""
    grown = torch.where(gain >= 0.25, damping, 1.5 * damping)
    return torch.where(gain > 0.75, damping / 1.5, grown).clamp(min=LEAST)
