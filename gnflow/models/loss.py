"""Cross-entropy of the next token, with the derivatives in the logits that second-order methods need.

L(z)      = sum_t w_t (logsumexp(z_t) - z_t[y_t]) / W       W = sum_t w_t
dL/dz     = w (p - y) / W                                   p = softmax(z)
d2L/dz2 v = w (p v - p <p, v>) / W
whitened  = w v / (V W)                         replaces d2L/dz2 v; V is the number of logits

All tokens of text weigh the same. If each modality has a softmax of its own, the logits of the other one are -inf:
there p is 0 and so is every derivative, the whitened one included.
"""

import torch
from torch import Tensor
from torch.nn import functional

from gnflow.models.targets import Split as Split
from gnflow.models.targets import Targets as Targets
from gnflow.models.targets import split as split
from gnflow.objective import Scalar, weigh_equally


def mask_logits(logits: Tensor, targets: Targets) -> Tensor:
    """Sets the logits outside the softmax to -inf: those of the other modality, if each has a softmax of its own."""
    return _fill_outside(logits, targets, float("-inf"))


def token_losses(logits: Tensor, targets: Targets) -> Tensor:
    """Returns the loss of each position in nats, without weights: (rows, time)."""
    chosen = mask_logits(logits, targets)
    return functional.cross_entropy(chosen.flatten(0, -2), targets.ids.flatten(), reduction="none").view_as(targets.ids)


def cross_entropy(logits: Tensor, targets: Targets) -> Scalar:
    """Returns the weighted mean loss over all tokens in nats, or 0 if no token has a weight."""
    if targets.weights is None:
        return functional.cross_entropy(mask_logits(logits, targets).flatten(0, -2), targets.ids.flatten())
    return (_shares(targets.weights, targets.total, logits) * token_losses(logits, targets)).sum()


def total_weight(targets: Targets) -> Scalar:
    """Returns the weight of a micro-batch in a mean over several: the sum of the weights of its targets.

    For text it is 1, since every micro-batch has the same number of targets.
    """
    return weigh_equally(targets.ids) if targets.weights is None else targets.weights.sum()


def cut(targets: Targets, count: int) -> list[Targets]:
    """Cuts targets into `count` parts, (tokens,) each. Their losses and derivatives add up to those of the whole."""
    ids, weights = targets.ids, targets.weights
    weights = torch.ones(ids.shape, device=ids.device) if weights is None else weights
    parts = (each.flatten().tensor_split(count) for each in (ids, weights))
    return [Targets(i, w, apart=targets.apart, total=weights.sum()) for i, w in zip(*parts, strict=True)]


def probabilities(logits: Tensor, targets: Targets) -> Tensor:
    """Returns p, shaped like the logits."""
    return torch.softmax(mask_logits(logits, targets), dim=-1)


def logit_gradient(p: Tensor, targets: Targets) -> Tensor:
    """Returns w (p - y) / W, shaped like the logits."""
    onehot = torch.arange(p.shape[-1], device=p.device) == targets.ids.unsqueeze(-1)
    return _average(p - onehot.to(p.dtype), targets)


def logit_hessian_product(p: Tensor, tangent: Tensor, targets: Targets) -> Tensor:
    """Returns w (p v - p <p, v>) / W, shaped like the logits."""
    weighted = p * tangent
    return _average(weighted - p * weighted.sum(-1, keepdim=True), targets)


def whitened_product(p: Tensor, tangent: Tensor, targets: Targets) -> Tensor:
    """Returns w v / (V W), shaped like the logits and 0 outside the softmax. It does not depend on p.

    1 / V is the curvature if all words are equally likely. This factor gives steps, damping and learning rates the
    size that they have with the Hessian itself.
    """
    return _average(_fill_outside(tangent, targets, 0.0), targets) / tangent.shape[-1]


def _fill_outside(each: Tensor, targets: Targets, value: float) -> Tensor:
    """Replaces the entries of ids outside the softmax by `value`."""
    if targets.apart is None:
        return each
    codes = torch.arange(each.shape[-1], device=each.device) >= targets.apart
    return each.masked_fill(codes != (targets.ids >= targets.apart).unsqueeze(-1), value)


def _average(each: Tensor, targets: Targets) -> Tensor:
    if targets.weights is None:
        return each / targets.ids.numel()
    return each * _shares(targets.weights, targets.total, each).unsqueeze(-1)


def _shares(weights: Tensor, total: Tensor | None, like: Tensor) -> Tensor:
    """Returns w / W."""
    weights = weights.to(like.dtype)
    total = weights.sum() if total is None else total.to(like.dtype)
    return weights / total.clamp(min=torch.finfo(like.dtype).tiny)
