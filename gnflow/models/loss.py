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
    """Set the logits outside the softmax to -inf: those of the other modality, if each has a softmax of its own."""
    return _fill_outside(logits, targets, float("-inf"))


def compute_token_losses(logits: Tensor, targets: Targets) -> Tensor:
    """Return the loss of each position in nats, without weights: (rows, time)."""
    chosen = mask_logits(logits, targets)
    return functional.cross_entropy(chosen.flatten(0, -2), targets.ids.flatten(), reduction="none").view_as(targets.ids)


def compute_cross_entropy(logits: Tensor, targets: Targets) -> Scalar:
    """Return the weighted mean loss over all tokens in nats, or 0 if no token has a weight."""
    if targets.weights is None:
        return functional.cross_entropy(mask_logits(logits, targets).flatten(0, -2), targets.ids.flatten())
    return (_compute_shares(targets.weights, targets.total, logits) * compute_token_losses(logits, targets)).sum()


def compute_loss_and_probabilities(logits: Tensor, targets: Targets) -> tuple[Scalar, Tensor]:
    """Return the weighted mean loss in nats, and p, shaped like the logits.

    Both come from s = z - max z and its logsumexp. The entry of the target is taken by a sum, which compiled code joins
    to that of the logsumexp. Then nothing but p needs the logits, and p is written over them.
    """
    chosen = mask_logits(logits, targets)
    shifted = chosen - chosen.amax(dim=-1, keepdim=True)
    ours = torch.where(_mark_targets(targets.ids, logits), shifted, 0.0).sum(dim=-1, keepdim=True)
    total = shifted.exp().sum(dim=-1, keepdim=True).log()
    return _average(total - ours, targets).sum(), torch.exp(shifted - total)


def compute_total_weight(targets: Targets) -> Scalar:
    """Return the weight of a micro-batch in a mean over several: the sum of the weights of its targets.

    For text it is 1, since every micro-batch has the same number of targets.
    """
    return weigh_equally(targets.ids) if targets.weights is None else targets.weights.sum()


def cut(targets: Targets, count: int) -> list[Targets]:
    """Cut targets into `count` parts, (tokens,) each. Their losses and derivatives add up to those of the whole."""
    ids, weights = targets.ids, targets.weights
    weights = torch.ones(ids.shape, device=ids.device) if weights is None else weights
    parts = [each.flatten().tensor_split(count) for each in (ids, weights)]
    whole = [Targets(i, w, apart=targets.apart, total=weights.sum()) for i, w in zip(*parts, strict=True)]
    if targets.noise is None:
        return whole
    noise = targets.noise.flatten().tensor_split(count)
    return [part._replace(noise=own) for part, own in zip(whole, noise, strict=True)]


def compute_probabilities(logits: Tensor, targets: Targets) -> Tensor:
    """Return p, shaped like the logits."""
    return torch.softmax(mask_logits(logits, targets), dim=-1)


def compute_logit_gradient(p: Tensor, targets: Targets) -> Tensor:
    """Return w (p - y) / W, shaped like the logits."""
    return _average(p - _mark_targets(targets.ids, p).to(p.dtype), targets)


def draw_labels(p: Tensor, noise: Tensor) -> Tensor:
    """Draw a label for each position from p, by inversion of its cumulative sum: (rows, time)."""
    cumulative = p.cumsum(dim=-1)
    # 1 - noise is in (0, 1], so no label without probability is drawn, whatever the rounding of the sum.
    height = (1 - noise).to(p.dtype).unsqueeze(-1) * cumulative[..., -1:]
    return (cumulative < height).sum(-1)


def draw_logit_gradient(p: Tensor, targets: Targets) -> Tensor:
    """Return sqrt(w / W) (p - y) for labels y drawn from p, shaped like the logits.

    Its mean is 0 and its covariance the Hessian of the loss in the logits.
    """
    assert targets.noise is not None
    labels = draw_labels(p, targets.noise)
    return share_weights(p, targets).sqrt() * (p - _mark_targets(labels, p).to(p.dtype))


def share_weights(p: Tensor, targets: Targets) -> Tensor:
    """Return w / W with an axis of length 1 in place of the logits."""
    if targets.weights is None:
        return torch.full_like(p[..., :1], 1 / targets.ids.numel())
    return _compute_shares(targets.weights, targets.total, p).unsqueeze(-1)


def compute_logit_hessian_product(p: Tensor, tangent: Tensor, targets: Targets) -> Tensor:
    """Return w (p v - p <p, v>) / W, shaped like the logits."""
    weighted = p * tangent
    return _average(weighted - p * weighted.sum(-1, keepdim=True), targets)


def compute_whitened_product(p: Tensor, tangent: Tensor, targets: Targets) -> Tensor:
    """Return w v / (V W), shaped like the logits and 0 outside the softmax. It does not depend on p.

    1 / V is the curvature if all words are equally likely. This factor gives steps, damping and learning rates the
    size that they have with the Hessian itself.
    """
    return _average(_fill_outside(tangent, targets, 0.0), targets) / tangent.shape[-1]


def _mark_targets(ids: Tensor, like: Tensor) -> Tensor:
    """Return y as booleans, shaped like the logits."""
    return torch.arange(like.shape[-1], device=like.device) == ids.unsqueeze(-1)


def _fill_outside(each: Tensor, targets: Targets, value: float) -> Tensor:
    """Replace the entries of ids outside the softmax by `value`."""
    if targets.apart is None:
        return each
    codes = torch.arange(each.shape[-1], device=each.device) >= targets.apart
    return each.masked_fill(codes != (targets.ids >= targets.apart).unsqueeze(-1), value)


def _average(each: Tensor, targets: Targets) -> Tensor:
    if targets.weights is None:
        return each / targets.ids.numel()
    return each * _compute_shares(targets.weights, targets.total, each).unsqueeze(-1)


def _compute_shares(weights: Tensor, total: Tensor | None, like: Tensor) -> Tensor:
    """Return w / W."""
    weights = weights.to(like.dtype)
    total = weights.sum() if total is None else total.to(like.dtype)
    return weights / total.clamp(min=torch.finfo(like.dtype).tiny)
