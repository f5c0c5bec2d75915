"""Transforms made of transforms: one after another, or one for each part of the parameters."""

import re
from collections.abc import Iterable, Mapping
from math import gcd
from typing import NamedTuple, TypeAlias

import torch
from torch import Tensor

from gnflow import trees
from gnflow.objective import Params
from gnflow.optim.protocol import AnyState, AnyTransform, Collect, Curvature, Fisher, Signals, Transform

Chained: TypeAlias = tuple[AnyState, ...]
Parts: TypeAlias = dict[str, AnyState]


class Empty(NamedTuple):
    """The state of a transform that keeps nothing."""


def chain(*transforms: AnyTransform) -> Transform[Chained]:
    """Make each transform work on the updates of the one before; metric and momentum are those of the last."""
    *before, last = transforms

    def init(params: Params) -> Chained:
        return tuple(transform.init(params) for transform in transforms)

    def pass_on(gradients: Params, state: Chained, params: Params) -> tuple[Params, Chained]:
        """Pass gradients through all transforms but the last."""
        states = []
        for transform, inner in zip(before, state, strict=False):
            gradients, inner = transform.update(gradients, inner, params)
            states.append(inner)
        return gradients, tuple(states)

    def update(gradients: Params, state: Chained, params: Params) -> tuple[Params, Chained]:
        gradients, states = pass_on(gradients, state, params)
        updates, inner = last.update(gradients, state[-1], params)
        return updates, (*states, inner)

    def refresh(gradients: Params, state: Chained) -> Chained:
        pairs = zip(transforms, state, strict=True)
        return tuple(inner if each.refresh is None else each.refresh(gradients, inner) for each, inner in pairs)

    def wrap_last(metric: Fisher[AnyState]) -> Fisher[Chained]:
        def feed(
            direction: Params, factors: Params, second: Params, state: Chained, params: Params
        ) -> tuple[Params, Chained]:
            direction, states = pass_on(direction, state, params)
            (factors, _), (second, _) = pass_on(factors, state, params), pass_on(second, state, params)
            updates, inner = metric.update(direction, factors, second, state[-1], params)
            return updates, (*states, inner)

        return Fisher(
            lambda tree, state: metric.into(tree, state[-1]),
            lambda tree, state: metric.back(tree, state[-1]),
            lambda state: metric.diagonal(state[-1]),
            feed,
        )

    def rule(name: str) -> str:
        return "/".join(each.rule(name) for each in transforms if each.rule is not None)

    momentum = last.momentum

    def look_ahead(gradients: Params, state: Chained) -> Params:
        # What comes before a momentum, clipping, looks at gradients alone: they stand in for the parameters.
        return momentum(pass_on(gradients, state, gradients)[0], state[-1]) if momentum is not None else {}

    return Transform(
        init,
        update,
        refresh if any(each.refresh for each in transforms) else None,
        _find_period(transforms),
        None if last.metric is None else wrap_last(last.metric),
        None if momentum is None else look_ahead,
        rule if any(each.rule for each in transforms) else None,
        any(transform.each for transform in transforms),
        _chain_curvature(transforms),
        _chain_signals(transforms),
    )


def partition(transforms: Mapping[str, AnyTransform], routes: Mapping[str, str]) -> Transform[Parts]:
    """Send each parameter to the transform that `routes` names for it. Raises KeyError for one without a route.

    Raises ValueError for a route to none of the transforms. `route` makes routes out of regular expressions.
    """
    if strange := sorted(set(routes.values()) - set(transforms)):
        raise ValueError(f"routes lead to {', '.join(strange)}; the transforms are {', '.join(transforms)}")
    used = {rule: transforms[rule] for rule in transforms if rule in set(routes.values())}
    fisher = {rule: each.metric for rule, each in used.items() if each.metric is not None}
    curved = {rule: each.curvature for rule, each in used.items() if each.curvature is not None}
    watching = {rule: each.signals for rule, each in used.items() if each.signals is not None}
    moving = {rule: each.momentum for rule, each in used.items() if each.momentum is not None}

    def find_owner(name: str) -> str:
        if name not in routes:
            raise KeyError(f"partition has no route for `{name}`")
        return routes[name]

    def pick_part(rule: str, tree: Params) -> Params:
        return trees.pick(tree, [name for name in tree if find_owner(name) == rule])

    def init(params: Params) -> Parts:
        return {rule: used[rule].init(own) for rule in used if (own := pick_part(rule, params))}

    def merge(done: Mapping[str, tuple[Params, AnyState]], params: Params) -> tuple[Params, Parts]:
        updates = {name: value for part, _ in done.values() for name, value in part.items()}
        return trees.pick(updates, params), {rule: state for rule, (_, state) in done.items()}

    def update(gradients: Params, state: Parts, params: Params) -> tuple[Params, Parts]:
        done = {
            rule: used[rule].update(pick_part(rule, gradients), before, pick_part(rule, params))
            for rule, before in state.items()
        }
        return merge(done, params)

    def refresh(gradients: Params, state: Parts) -> Parts:
        return {
            rule: inner if (work := used[rule].refresh) is None else work(pick_part(rule, gradients), inner)
            for rule, inner in state.items()
        }

    def observe(diagonal: Params, state: Parts) -> Parts:
        seen = {rule: curved[rule].observe(pick_part(rule, diagonal), state[rule]) for rule in curved if rule in state}
        return {**state, **seen}

    def find_due(state: Parts) -> int | None:
        found = [each.due(state[rule]) for rule, each in curved.items() if rule in state]
        return next((updates for updates in found if updates is not None), None)

    def watch(collect: Collect, state: Parts) -> Parts:
        return {**state, **{rule: watching[rule].observe(collect, state[rule]) for rule in watching if rule in state}}

    def find_watch_due(state: Parts) -> int | None:
        found = [each.due(state[rule]) for rule, each in watching.items() if rule in state]
        return next((updates for updates in found if updates is not None), None)

    def feed(direction: Params, factors: Params, second: Params, state: Parts, params: Params) -> tuple[Params, Parts]:
        done = {}
        for rule, before in state.items():
            own, weights = pick_part(rule, direction), pick_part(rule, params)
            if rule in fisher:
                statistics = pick_part(rule, factors), pick_part(rule, second)
                done[rule] = fisher[rule].update(own, *statistics, before, weights)
            else:
                done[rule] = used[rule].update(own, before, weights)
        return merge(done, params)

    def into(tree: Params, state: Parts) -> Params:
        turned = [metric.into(pick_part(rule, tree), state[rule]) for rule, metric in fisher.items() if rule in state]
        return {**tree, **{name: value for each in turned for name, value in each.items()}}

    def back(tree: Params, state: Parts) -> Params:
        turned = [metric.back(pick_part(rule, tree), state[rule]) for rule, metric in fisher.items() if rule in state]
        return {**tree, **{name: value for each in turned for name, value in each.items()}}

    def diagonal(state: Parts) -> Params:
        parts = [metric.diagonal(state[rule]) for rule, metric in fisher.items() if rule in state]
        return {name: value for each in parts for name, value in each.items()}

    def rule(name: str) -> str:
        inner = used[find_owner(name)].rule
        return find_owner(name) if inner is None else f"{find_owner(name)}/{inner(name)}"

    def momentum(gradients: Params, state: Parts) -> Params:
        parts = [ahead(pick_part(rule, gradients), state[rule]) for rule, ahead in moving.items() if rule in state]
        return {name: value for each in parts for name, value in each.items()}

    return Transform(
        init,
        update,
        refresh if any(each.refresh for each in used.values()) else None,
        _find_period(used.values()),
        Fisher(into, back, diagonal, feed) if fisher else None,
        momentum if moving else None,
        rule,
        any(transform.each for transform in used.values()),
        Curvature(observe, find_due, gcd(*(each.period for each in curved.values()))) if curved else None,
        Signals(watch, find_watch_due, gcd(*(each.period for each in watching.values()))) if watching else None,
    )


def route(params: Iterable[str] | Iterable[tuple[str, Tensor]], labels: Mapping[str, str]) -> dict[str, str]:
    """Return the routes for `partition`: the label of the first regular expression that is found in a name.

    `params` is `model.named_parameters()` or names. Raises ValueError for parameters that no pattern matches and for
    patterns that own no parameter.
    """
    names = [each if isinstance(each, str) else each[0] for each in params]
    owners = {name: next((p for p in labels if re.search(p, name)), None) for name in names}
    if unmatched := [name for name, owner in owners.items() if owner is None]:
        raise ValueError(f"no pattern matches {', '.join(unmatched)}")
    if idle := [pattern for pattern in labels if pattern not in owners.values()]:
        raise ValueError(f"these patterns own no parameter, first match wins: {', '.join(idle)}")
    return {name: labels[owner] for name, owner in owners.items() if owner is not None}


def _find_period(transforms: Iterable[AnyTransform]) -> int:
    return gcd(*(each.period for each in transforms if each.refresh is not None)) or 1


def _chain_curvature(transforms: tuple[AnyTransform, ...]) -> Curvature[Chained] | None:
    curved = {i: each.curvature for i, each in enumerate(transforms) if each.curvature is not None}

    def observe(diagonal: Params, state: Chained) -> Chained:
        return tuple(curved[i].observe(diagonal, inner) if i in curved else inner for i, inner in enumerate(state))

    def find_due(state: Chained) -> int | None:
        found = [each.due(state[i]) for i, each in curved.items()]
        return next((updates for updates in found if updates is not None), None)

    return Curvature(observe, find_due, gcd(*(each.period for each in curved.values()))) if curved else None


def _chain_signals(transforms: tuple[AnyTransform, ...]) -> Signals[Chained] | None:
    watching = {i: each.signals for i, each in enumerate(transforms) if each.signals is not None}

    def watch(collect: Collect, state: Chained) -> Chained:
        return tuple(watching[i].observe(collect, inner) if i in watching else inner for i, inner in enumerate(state))

    def find_due(state: Chained) -> int | None:
        found = [each.due(state[i]) for i, each in watching.items()]
        return next((updates for updates in found if updates is not None), None)

    return Signals(watch, find_due, gcd(*(each.period for each in watching.values()))) if watching else None


def clip_by_global_norm(largest: float) -> Transform[Empty]:
    """Make G <- G min(1, largest / |G|), with the norm over all parameters together."""
    return Transform(
        lambda params: Empty(), lambda gradients, state, params: (_shrink(gradients, largest), state)
    )  # fmt: skip


def clip_by_group(limits: Mapping[str, float], groups: Mapping[str, str]) -> Transform[Empty]:
    """Clip each group of parameters by its own norm. `groups` has the group of a parameter; no limit, no clipping."""

    def update(gradients: Params, state: Empty, params: Params) -> tuple[Params, Empty]:
        clipped = dict(gradients)
        for group, largest in limits.items():
            own = [name for name in gradients if groups.get(name) == group]
            if own:
                clipped |= _shrink(trees.pick(gradients, own), largest)
        return clipped, state

    return Transform(lambda params: Empty(), update)


def _shrink(gradients: Params, largest: float) -> Params:
    shrink: Tensor = (largest / trees.norm(gradients).clamp(min=torch.finfo(torch.float32).tiny)).clamp(max=1)
    return trees.scale(gradients, shrink)
