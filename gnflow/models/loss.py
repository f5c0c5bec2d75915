"""Cross-entropy of the next token, with the derivatives in the logits that second-order methods need.

L(z)      = sum_t w_t (logsumexp(z_t) - z_t[y_t]) / W       W = sum_t w_t
dL/dz     = w (p - y) / W                                   p = softmax(z)
d2L/dz2 v = w (p v - p <p, v>) / W
whitened  = w v / (V W)                         in place of d2L/dz2 v, of V logits

Of text all tokens weigh the same. Where each modality has a softmax of its own, logits of the other one are -inf: p is
0 there, and so is every derivative, the whitened one too.
"""

import torch
from torch import Tensor
from torch.nn import functional

from gnflow.models.targets import Split as Split
from gnflow.models.targets import Targets as Targets
from gnflow.models.targets import split as split
from gnflow.objective import Scalar, equal_weight


def mask_logits(logits: Tensor, targets: Targets) -> Tensor:
    """The logits that the softmax is over: -inf for ids of the other modality, where each has its own."""
    return _fill_outside(logits, targets, float("-inf"))


def token_losses(logits: Tensor, targets: Targets) -> Tensor:
    """Of each position, in nats and without weights: (rows, time)."""
    chosen = mask_logits(logits, targets)
    return functional.cross_entropy(chosen.flatten(0, -2), targets.ids.flatten(), reduction="none").view_as(targets.ids)


def cross_entropy(logits: Tensor, targets: Targets) -> Scalar:
    """Weighted mean over all tokens, in nats; 0 where none has a weight."""
    if targets.weights is None:
        return functional.cross_entropy(mask_logits(logits, targets).flatten(0, -2), targets.ids.flatten())
    return (_shares(targets.weights, targets.total, logits) * token_losses(logits, targets)).sum()


def total_weight(targets: Targets) -> Scalar:
    """Of a micro-batch among others: that of its targets; of text, which has as many everywhere, 1."""
    return equal_weight(targets.ids) if targets.weights is None else targets.weights.sum()


def cut(targets: Targets, count: int) -> list[Targets]:
    """`count` parts of (tokens,) each, whose losses and derivatives add up to those of all the targets."""
    ids, weights = targets.ids, targets.weights
    weights = torch.ones(ids.shape, device=ids.device) if weights is None else weights
    parts = (each.flatten().tensor_split(count) for each in (ids, weights))
    return [Targets(i, w, apart=targets.apart, total=weights.sum()) for i, w in zip(*parts, strict=True)]


def probabilities(logits: Tensor, targets: Targets) -> Tensor:
    """p, shaped like the logits."""
    return torch.softmax(mask_logits(logits, targets), dim=-1)


def logit_gradient(p: Tensor, targets: Targets) -> Tensor:
    """w (p - y) / W, shaped like the logits."""
    onehot = torch.arange(p.shape[-1], device=p.device) == targets.ids.unsqueeze(-1)
    return _average(p - onehot.to(p.dtype), targets)


def logit_hessian_product(p: Tensor, tangent: Tensor, targets: Targets) -> Tensor:
    """w (p v - p <p, v>) / W, shaped like the logits."""
    weighted = p * tangent
    return _average(weighted - p * weighted.sum(-1, keepdim=True), targets)


def whitened_product(p: Tensor, tangent: Tensor, targets: Targets) -> Tensor:
    """w v / (V W), shaped like the logits; 0 outside the softmax. Of p nothing is needed.

    1 / V is the curvature where all words are as likely: with it a step, its damping and the rates inside are of the
    size that they have with the Hessian itself.
    """
    return _average(_fill_outside(tangent, targets, 0.0), targets) / tangent.shape[-1]


def _fill_outside(each: Tensor, targets: Targets, value: float) -> Tensor:
    """`value` for ids that the softmax is not over."""
    if targets.apart is None:
        return each
    codes = torch.arange(each.shape[-1], device=each.device) >= targets.apart
    return each.masked_fill(codes != (targets.ids >= targets.apart).unsqueeze(-1), value)


def _average(each: Tensor, targets: Targets) -> Tensor:
    if targets.weights is None:
        return each / targets.ids.numel()
    return each * _shares(targets.weights, targets.total, each).unsqueeze(-1)


def _shares(weights: Tensor, total: Tensor | None, like: Tensor) -> Tensor:
    """w / W"""
    weights = weights.to(like.dtype)
    total = weights.sum() if total is None else total.to(like.dtype)
    return weights / total.clamp(min=torch.finfo(like.dtype).tiny)
