"""The objective of a model, computed a stage at a time: the loss, its gradient and its convex models.

    forward    x, x' <- f x, J (w', x')         for each stage f below the head; w' the displacement of its weights
    head       z, v = head x, its tangent;  c = the surrogate's cotangent of z;  w_, x_ = J' c of the head
    reverse    w_, x_ <- J' x_                  the last stage first

A stage below all moving weights has no tangent and no cotangent. The logits may be computed for a piece of the tokens
at a time, so that no buffer ever has the size of all logits.

An executor evaluates the stages. So this is the only code for stages that are compiled and stages that are not, for
activations that are kept and activations that are computed again. Eager results are to the bit those of the model as
one function, if the logits are in one piece.
"""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from functools import partial, reduce
from typing import Generic, NamedTuple, ParamSpec, TypeVar

import torch
from torch import Tensor

from gnflow import trees
from gnflow.curvature import heads
from gnflow.curvature.diagonal import add_noise
from gnflow.curvature.diagonal import diagonal as draw
from gnflow.curvature.executor import (
    EAGER,
    Executor,
    Recompute,
    Tangents,
    X,
    apply,
    keep,
    push,
    push_from_rounded,
    push_towards,
)
from gnflow.curvature.heads import Operator
from gnflow.curvature.linearised import Bend, Surrogate
from gnflow.curvature.signals import Setting, collect_signals
from gnflow.curvature.tangents import Tangent, choose_step
from gnflow.models.loss import Targets, compute_total_weight, cut
from gnflow.models.model import Model, Stage
from gnflow.objective import Objective, Params, Scalar, Tokens, Watch

P = ParamSpec("P")
R = TypeVar("R")


class Thrift(NamedTuple):
    """The measures that save memory."""

    pieces: int = 1
    """Number of pieces that the logits of a micro-batch are computed in."""
    recomputed: bool = False
    """Whether the reverse pass computes each stage again instead of keeping its activations."""


KEEP_ALL = Thrift()


class Staged(Generic[P, R]):
    """A function that evaluates stages: eagerly when it is called, or by any executor."""

    def __init__(self, function: Callable[[Executor], Callable[P, R]]) -> None:
        self.on = function
        """executor -> the same function, with its stages evaluated by that executor."""

    def __call__(self, *arguments: P.args, **named: P.kwargs) -> R:
        """Evaluate all stages eagerly."""
        return self.on(EAGER)(*arguments, **named)


def build_objective(
    network: Model,
    surrogate: Surrogate,
    bend: Bend,
    thrift: Thrift = KEEP_ALL,
    reduced: Model | None = None,
    tangent: Tangent = "exact",
) -> Objective:
    """Build the objective of `network` with these measures. All its functions but `weight` are `Staged`.

    All but values use the network `reduced`, if there is one, which computes in bfloat16 except for its logits. It
    rounds the anchor, so a convex model is then one around the rounded anchor, with the displacement from there.
    `tangent` says how convex models take their tangents.
    """
    by_difference, lower = tangent == "difference", reduced or network
    towards = push_towards if reduced is None else push_from_rounded
    expand = heads.expand_by_difference(surrogate) if by_difference else heads.expand(surrogate, towards)
    measure = heads.measure_by_difference(surrogate) if by_difference else heads.measure(surrogate)
    multiply = heads.multiply(bend)

    def value(executor: Executor, params: Params, tokens: Tokens) -> Scalar:
        inputs, targets = network.split(tokens)
        head, x = network.head, _run(network, executor, params, inputs)
        point = head.pick(params)
        return reduce(
            torch.add,
            [
                executor.call(heads.value, head.function, {**point, X: part}, judged)
                for part, judged in zip(_split(x, thrift.pieces), _cut(targets, thrift.pieces), strict=True)
            ],
        )

    def gradient(executor: Executor, params: Params, tokens: Tokens) -> tuple[Params, Scalar]:
        return _derive(_Case(lower, thrift, executor, params, network.moving), heads.gradient, tokens)

    def aim(case: _Case, params: Params, anchor: Params) -> _Case:
        """Give a case the tangent along params - anchor."""
        if not by_difference:
            return case._replace(goal=params)
        displacement = _Each(params, lambda name: params[name] - anchor[name])
        h = choose_step(displacement, anchor)
        beside = _Each(anchor, lambda n: anchor[n] + h * displacement[n] if n in displacement else anchor[n])
        return case._replace(push=keep, beside=beside, step=(h,))

    def curved(executor: Executor, params: Params, anchor: Params, tokens: Tokens) -> tuple[Params, Scalar]:
        case = _Case(lower, thrift, executor, anchor, params, towards)
        return _derive(aim(case, params, anchor), expand, tokens)

    def curved_value(executor: Executor, params: Params, anchor: Params, tokens: Tokens) -> Scalar:
        # Without a reverse pass nothing is computed again, and no activations are kept.
        case = _Case(network, thrift._replace(recomputed=True), executor, anchor, params, push_towards)
        return _measure(aim(case, params, anchor), measure, tokens)

    def product(executor: Executor, direction: Params, anchor: Params, tokens: Tokens) -> Params:
        return _derive(_Case(lower, thrift, executor, anchor, direction, push, direction), multiply, tokens)[0]

    def diagonal(executor: Executor, params: Params, noise: Tensor, tokens: Tokens) -> Params:
        drawn = lower._replace(split=add_noise(network.split, noise))
        slope, _ = _derive(_Case(drawn, thrift, executor, params, network.moving), draw, tokens)
        return trees.map_tensors(torch.square, slope)

    def signals(executor: Executor, params: Params, noise: Tensor, watch: Watch, tokens: Tokens) -> dict[str, Params]:
        drawn = network._replace(split=add_noise(network.split, noise))
        return collect_signals(Setting(drawn, executor, params, watch, *thrift), tokens)

    return Objective(
        Staged(lambda executor: partial(value, executor)),
        Staged(lambda executor: partial(gradient, executor)),
        Staged(lambda executor: partial(curved, executor)),
        Staged(lambda executor: partial(product, executor)),
        lambda tokens: compute_total_weight(network.split(tokens)[1]),
        Staged(lambda executor: partial(diagonal, executor)),
        Staged(lambda executor: partial(signals, executor)),
        Staged(lambda executor: partial(curved_value, executor)),
    )


class _Each(Mapping[str, Tensor]):
    """Tensors by name. Each is computed when it is asked for, so that they are not all in memory together."""

    def __init__(self, names: Collection[str], compute: Callable[[str], Tensor]) -> None:
        self._names, self._compute = names, compute

    def __getitem__(self, name: str) -> Tensor:
        return self._compute(name)

    def __contains__(self, name: object) -> bool:
        return name in self._names

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


class _Case(NamedTuple):
    """The point of a derivative, and how it is evaluated."""

    network: Model
    thrift: Thrift
    executor: Executor
    anchor: Params
    moving: Collection[str]
    """Names of the weights that the gradient is taken in."""
    push: Callable[..., tuple[Tensor, Tangents]] = keep
    """The operator that takes a stage's value, and its tangent if there is one."""
    goal: Params | None = None
    """What that operator needs to know of the moving weights for their tangent."""
    beside: Mapping[str, Tensor] | None = None
    """Weights beside the anchor, if the tangent is a difference; `step` leads to them."""
    step: tuple[Tensor, ...] = ()


class _Below(NamedTuple):
    """What the stages below the head hand on."""

    x: Tensor
    tangents: Tangents
    """The tangent of x or the features beside x, if there are any."""
    pullbacks: list[tuple[Stage, Callable[[Tensor], Params]]]


def _derive(case: _Case, judge: Operator, tokens: Tokens) -> tuple[Params, Scalar]:
    """Return (gradient, value) of what `judge` computes from the head."""
    inputs, targets = case.network.split(tokens)
    below = _push_through(case, inputs)
    value, gradient, cotangent = _turn(case, judge, below, targets)
    while below.pullbacks:
        stage, pullback = below.pullbacks.pop()
        slopes = pullback(cotangent)
        cotangent = slopes.pop(X, cotangent)
        for name, slope in slopes.items():
            known = gradient.get(stage.prefix + name)
            gradient[stage.prefix + name] = slope if known is None else known + slope
    return trees.pick(gradient, case.moving), value


def _measure(case: _Case, judge: Callable[..., Scalar], tokens: Tokens) -> Scalar:
    """Return the value of what `judge` computes from the head."""
    inputs, targets = case.network.split(tokens)
    pieces = _list_pieces(case, _push_through(case, inputs), targets)
    return reduce(torch.add, [case.executor.call(judge, case.network.head.function, *piece) for piece in pieces])


def _push_through(case: _Case, inputs: Tensor) -> _Below:
    """Take the inputs through all stages below the head."""
    keeping = Recompute(case.executor) if case.thrift.recomputed else case.executor
    below = _Below(inputs, (), [])
    for stage in case.network.layers:
        names = [*stage.list_names(case.moving), *([X] if below.pullbacks else [])]
        own, rest = _divide({**stage.pick(case.anchor), X: below.x}, names)
        if not own:
            below = below._replace(x=case.executor.call(apply, stage.function, rest))
            continue
        goal = [] if case.goal is None else [_add_x(stage.pick(case.goal), below.tangents)]
        x, pullback, tangents = keeping.pull(case.push, stage.function, own, rest, *goal)
        if case.beside is not None:
            point = {**stage.pick(case.beside), X: (*below.tangents, below.x)[0]}
            tangents = (case.executor.call(apply, stage.function, point),)
        below = _Below(x, tangents, [*below.pullbacks, (stage, pullback)])
    # If no stage below the head moves, the features beside x are x.
    return below if case.beside is None or below.tangents else below._replace(tangents=(below.x,))


def _turn(case: _Case, judge: Operator, below: _Below, targets: Targets) -> tuple[Scalar, Params, Tensor]:
    """Return (value, gradient in the weights of the head, cotangent of the features)."""
    head, count = case.network.head, case.thrift.pieces
    values: list[Scalar] = []
    cotangents: list[Tensor] = []
    gradient: Params = {}
    for piece in _list_pieces(case, below, targets):
        value, slope = case.executor.call(judge, head.function, *piece)
        cotangents += [slope.pop(X)] if below.pullbacks else []
        gradient = trees.add(gradient, slope) if gradient else slope
        values.append(value)
    cotangent = torch.cat(cotangents).view_as(below.x) if count > 1 and cotangents else (*cotangents, below.x)[0]
    return reduce(torch.add, values), {head.prefix + name: slope for name, slope in gradient.items()}, cotangent


def _list_pieces(case: _Case, below: _Below, targets: Targets) -> Iterator[tuple[object, ...]]:
    """Yield the arguments of the head's operator for each piece of the tokens."""
    head, point, count = case.network.head, case.network.head.pick(case.anchor), case.thrift.pieces
    names = [*head.list_names(case.moving), *([X] if below.pullbacks else [])]
    other = case.goal if case.beside is None else case.beside
    companion = None if other is None else head.pick(other)
    pieces = zip(*(_split(each, count) for each in (below.x, *below.tangents)), strict=True)
    for (x, *tangents), judged in zip(pieces, _cut(targets, count), strict=True):
        own, rest = _divide({**point, X: x}, names)
        given = [] if companion is None else [_add_x(companion, tangents)]
        yield own, rest, *given, *case.step, judged


def _run(network: Model, executor: Executor, params: Mapping[str, Tensor], x: Tensor) -> Tensor:
    """Return the features that the head reads."""
    for stage in network.layers:
        x = executor.call(apply, stage.function, {**stage.pick(params), X: x})
    return x


def _divide(point: Params, names: Collection[str]) -> tuple[Params, Params]:
    """Divide the arguments of a stage into those named and the rest."""
    return trees.pick(point, names), {name: value for name, value in point.items() if name not in names}


def _add_x(weights: Params, xs: Sequence[Tensor]) -> Params:
    """Return the weights with x among them, if there is one."""
    return {**weights, X: xs[0]} if xs else weights


def _split(x: Tensor, count: int) -> Sequence[Tensor]:
    """Split (rows, time, width) into pieces (tokens, width)."""
    return [x] if count == 1 else x.flatten(0, -2).tensor_split(count)


def _cut(targets: Targets, count: int) -> Sequence[Targets]:
    return [targets] if count == 1 else cut(targets, count)
