"""Mean cross-entropy of the next token, with the derivatives in the logits that second-order methods need.

L(z)      = mean over tokens of  logsumexp(z) - z[y]
dL/dz     = (p - y) / n                       p = softmax(z), n tokens
d2L/dz2 v = (p v - p <p, v>) / n
"""

import torch
from torch import Tensor
from torch.nn import functional

from gnflow.objective import Scalar, Tokens


def split(tokens: Tokens) -> tuple[Tensor, Tensor]:
    """(rows, time + 1) -> inputs and targets, (rows, time) each."""
    return tokens[:, :-1], tokens[:, 1:]


def cross_entropy(logits: Tensor, targets: Tensor) -> Scalar:
    """Mean over all tokens, in nats."""
    return functional.cross_entropy(logits.flatten(0, -2), targets.flatten())


def logit_gradient(probabilities: Tensor, targets: Tensor) -> Tensor:
    """(p - y) / n, shaped like the logits."""
    onehot = torch.arange(probabilities.shape[-1], device=targets.device) == targets.unsqueeze(-1)
    return (probabilities - onehot.to(probabilities.dtype)) / targets.numel()


def logit_hessian_product(probabilities: Tensor, tangent: Tensor) -> Tensor:
    """(p v - p <p, v>) / n, shaped like the logits."""
    weighted = probabilities * tangent
    count = probabilities[..., 0].numel()
    return (weighted - probabilities * weighted.sum(-1, keepdim=True)) / count
