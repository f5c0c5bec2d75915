"""The inputs of linear layers and the gradients at their outputs, for labels that stand for the curvature of the loss.

    y_t = W x_t          t: a token;  g_t = dS/dy_t,  S = <c, z>,  z the logits, c a random cotangent with mean 0
    E sum_{s,t} (g_s g_t') (x) (x_s x_t') = the block of W in the Gauss-Newton matrix, as E c c' = H, the Hessian in z

    drawn      c_t = sqrt(w_t / W) (p - y_t),  with a label y_t drawn from p = softmax(z_t)
    expanded   c_t = sqrt(V) r_t sqrt(w_t / W) sqrt(p_k) (e_k - p)  for each k of the V logits, whose mean is taken;
               r_t = 1 or -1 at random, so that tokens of one row do not mix in the mean

For one token per row `expanded` has no noise left. Rows never mix, whatever the labels. A tap is a summand 0 behind a
linear map, so its gradient is g. The inputs come along with the forward pass.

Source:   Martens & Grosse 2015, arXiv:1503.05671, section 2 (drawn); Dangel et al. 2020, arXiv:1912.10985 (expanded)
Code:     github.com/f-dangel/curvlinops curvlinops/ggn_utils.py, computers of K-FAC
Differs:  `expanded` takes one reverse pass for each logit, not for each logit of each token
"""

from collections.abc import Callable
from functools import partial
from math import sqrt
from typing import NamedTuple

import torch
from torch import Tensor

from gnflow import trees
from gnflow.curvature.executor import Executor, Function, Pulled, Tangents, X, apply
from gnflow.models.linear import apply_linear
from gnflow.models.loss import Targets, compute_probabilities, cut, draw_logit_gradient, share_weights
from gnflow.models.model import Model, Stage
from gnflow.objective import Params, Tokens, Watch

TAP = "tap:"
"""The beginning of the name of a tap. The name of the weight follows."""


def tap(function: Function, moving: Params, rest: Params) -> tuple[Tensor, Tangents]:
    """Return the value of a stage with taps among `moving`, and the inputs of the tapped maps in the taps' order."""
    point = {**rest, **moving}
    taps = sorted(name for name in point if name.startswith(TAP))
    weights = {name: value for name, value in point.items() if name != X and name not in taps}
    inputs: Params = {}

    def linear(own: Params, name: str, x: Tensor) -> Tensor:
        y = apply_linear(own, name, x)
        if TAP + name not in point:
            return y
        inputs[TAP + name] = x
        return y + point[TAP + name]

    # A function that has linear maps takes this third argument.
    more = (linear,) if taps else ()
    return function(weights, point[X], *more), tuple(inputs[name] for name in taps)


def turn(
    function: Function, moving: Params, rest: Params, targets: Targets, column: Tensor | None = None
) -> tuple[Params, Tangents]:
    """Return (gradients in `moving`, inputs of the tapped maps) of the head, for drawn labels or for one logit."""
    logits, pullback, inputs = torch.func.vjp(lambda part: tap(function, part, rest), moving, has_aux=True)  # type: ignore[misc]  # torch types the form without an auxiliary output
    p = compute_probabilities(logits, targets)
    cotangent = draw_logit_gradient(p, targets) if column is None else _expand(p, targets, column)
    return pullback(cotangent)[0], inputs


def _expand(p: Tensor, targets: Targets, column: Tensor) -> Tensor:
    """Return sqrt(V) r sqrt(w / W) sqrt(p_k) (e_k - p), shaped like the logits."""
    assert targets.noise is not None
    onehot = (torch.arange(p.shape[-1], device=p.device) == column).to(p.dtype)
    signs = torch.where(targets.noise < 0.5, 1.0, -1.0).to(p.dtype).unsqueeze(-1)
    chosen = (p * onehot).sum(-1, keepdim=True).sqrt()
    return sqrt(p.shape[-1]) * signs * share_weights(p, targets).sqrt() * chosen * (onehot - p)


class Setting(NamedTuple):
    """The network whose targets have noise, how it is evaluated, and what is taken."""

    network: Model
    executor: Executor
    params: Params
    watch: Watch
    pieces: int = 1
    """Number of pieces that the logits are computed in."""
    recomputed: bool = False
    """Whether the reverse pass computes each stage again instead of keeping its activations."""


def collect_signals(at: Setting, tokens: Tokens) -> dict[str, Params]:
    """Return the statistics by weight. Raises ValueError for a weight that no linear map of tokens has."""
    if strange := sorted(set(at.watch.statistics) - at.network.linears):
        raise ValueError(f"no linear map of tokens has the weight {', '.join(strange)}")
    inputs, targets = at.network.split(tokens)
    if not at.watch.expanded:
        return _collect(at, inputs, targets, None)
    count = _count_logits(at, inputs)
    total: dict[str, Params] = {}
    for column in range(count):
        found = _collect(at, inputs, targets, torch.tensor(column, device=tokens.device))
        total = {name: trees.add(total[name], each) for name, each in found.items()} if total else found
    return {name: trees.scale(each, 1 / count) for name, each in total.items()}


def _count_logits(at: Setting, inputs: Tensor) -> int:
    empty = {name: torch.empty_like(w, device="meta") for name, w in at.params.items()}
    return int(at.network.compute_logits(empty, inputs[:1].to("meta")).shape[-1])


def _collect(at: Setting, inputs: Tensor, targets: Targets, column: Tensor | None) -> dict[str, Params]:
    x, pulled = inputs, list[tuple[Stage, Callable[[], Pulled]]]()
    for stage in at.network.layers:
        own, rest = _divide(at, stage, x, below=bool(pulled))
        pull = partial(at.executor.pull, tap, stage.function, own, rest)
        if at.recomputed or not own:
            x = at.executor.call(apply, stage.function, {**stage.pick(at.params), X: x})
        else:
            kept = pull()
            x, pull = kept[0], partial(_recall, kept)
        if own:
            pulled.append((stage, pull))
    found, cotangent = _turn_at_head(at, x, targets, column, below=bool(pulled))
    while pulled:
        stage, again = pulled.pop()
        _, pullback, given = again()
        slopes = pullback(cotangent)
        cotangent = slopes.pop(X, cotangent)
        found |= _measure(at, stage, given, slopes)
    return {name: found[name] for name in at.watch.statistics}


def _recall(kept: Pulled) -> Pulled:
    return kept


def _turn_at_head(
    at: Setting, x: Tensor, targets: Targets, column: Tensor | None, below: bool
) -> tuple[dict[str, Params], Tensor]:
    """Return the statistics of the head and the cotangent of its features."""
    head, lead = at.network.head, x.shape[:-1]
    xs = [x] if at.pieces == 1 else x.flatten(0, -2).tensor_split(at.pieces)
    parts = [targets] if at.pieces == 1 else cut(targets, at.pieces)
    columns = () if column is None else (column,)
    turned = [
        at.executor.call(turn, head.function, *_divide(at, head, part, below), judged, *columns)
        for part, judged in zip(xs, parts, strict=True)
    ]
    joined = {name: torch.cat([slope[name] for slope, _ in turned]) for name in turned[0][0]}
    slopes = {name: slope.view(*lead, slope.shape[-1]) for name, slope in joined.items()}
    given = tuple(torch.cat(each).view(*lead, each[0].shape[-1]) for each in zip(*(g for _, g in turned), strict=True))
    cotangent = slopes.pop(X, x)
    return _measure(at, head, given, slopes), cotangent


def _divide(at: Setting, stage: Stage, x: Tensor, below: bool) -> tuple[Params, Params]:
    """Return what a stage is differentiated in, taps and perhaps x, and its other arguments."""
    weights = stage.pick(at.params)
    names = sorted(name for name in stage.linears if stage.prefix + name in at.watch.statistics)
    taps = {TAP + name: weights[name].new_zeros((*x.shape[:-1], weights[name].shape[0])) for name in names}
    return ({**taps, X: x}, weights) if below else (taps, {**weights, X: x})


def _measure(at: Setting, stage: Stage, given: Tangents, slopes: Params) -> dict[str, Params]:
    """Return the statistics of the tapped maps of a stage."""
    names = sorted(name for name in slopes if name.startswith(TAP))
    weights = [stage.prefix + name.removeprefix(TAP) for name in names]
    return {
        weight: at.watch.statistics[weight](x, slopes[name])
        for weight, name, x in zip(weights, names, given, strict=True)
    }
