"""The diagonal of the Gauss-Newton matrix, estimated from labels that the model draws.

    y ~ p = softmax(z),   g = J' [sqrt(w / W) (p - y)],   E g^2 = diag(J' H J)      H the Hessian of the loss in z

p - y has mean 0 and, over the draws, the covariance that H has for one target. Draws of different targets are
independent, so no products of two targets are left in the mean. If all B targets weigh the same, g^2 is B times the
square of the mean gradient on these labels.

Source:   Liu et al. 2023, arXiv:2305.14342, section 2.3 (Gauss-Newton-Bartlett); Wei et al. 2020, arXiv:2002.10365
Code:     github.com/Liuhong99/Sophia train_sophiag.py
Differs:  targets may have unequal weights; the squares are of single micro-batches and then averaged, where the code
          squares the mean over several: the same mean with less variance
"""

import torch
from torch import Tensor

from gnflow.curvature.executor import Function, apply
from gnflow.curvature.heads import Sloped
from gnflow.models.loss import Split, Targets, compute_probabilities, draw_logit_gradient
from gnflow.objective import Params, Tokens


def diagonal(function: Function, moving: Params, rest: Params, targets: Targets) -> Sloped:
    """Return (0, g), as an operator on the head. The targets have the noise that chooses the labels."""
    logits, pullback = torch.func.vjp(lambda part: apply(function, {**rest, **part}), moving)  # type: ignore[misc]  # torch types the form with an auxiliary output
    cotangent = draw_logit_gradient(compute_probabilities(logits, targets), targets)
    return logits.new_zeros(()), pullback(cotangent)[0]


def add_noise(read: Split, noise: Tensor) -> Split:
    """Make a `split` whose targets have this noise."""

    def split(tokens: Tokens) -> tuple[Tensor, Targets]:
        inputs, targets = read(tokens)
        return inputs, targets._replace(noise=noise)

    return split
