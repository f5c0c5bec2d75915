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

from collections.abc import Callable

from torch import Tensor

from gnflow import trees
from gnflow.curvature.tangents import push_nothing
from gnflow.models.loss import Split, Targets, compute_probabilities, draw_logit_gradient
from gnflow.objective import Params, Scalar, Tokens


def estimate_diagonal(
    logits: Callable[[Params, Tensor], Tensor], read: Split
) -> Callable[[Params, Params, Tensor, Tokens], Params]:
    """Return (params, moving, noise, tokens) -> the estimate for the parameters in `moving`."""

    def estimate(params: Params, moving: Params, noise: Tensor, tokens: Tokens) -> Params:
        inputs, targets = add_noise(read, noise)(tokens)
        z, pullback, _ = push_nothing(lambda p: logits(p, inputs), params, moving)
        (slope,) = pullback(draw_cotangent(z, z, targets)[1])
        return square(slope)

    return estimate


def add_noise(read: Split, noise: Tensor) -> Split:
    """Make a `split` whose targets have this noise."""

    def split(tokens: Tokens) -> tuple[Tensor, Targets]:
        inputs, targets = read(tokens)
        return inputs, targets._replace(noise=noise)

    return split


def draw_cotangent(logits: Tensor, tangent: Tensor, targets: Targets) -> tuple[Scalar, Tensor]:
    """Serve as a surrogate that ignores its tangent and has no value: its cotangent is drawn."""
    return logits.new_zeros(()), draw_logit_gradient(compute_probabilities(logits, targets), targets)


def square(slope: Params) -> Params:
    """Return the squares of all entries."""
    return trees.map_tensors(lambda g: g.square(), slope)
