"""Transforms made of transforms: one after another, or one for each part of the parameters."""

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from gnflow import trees
from gnflow.objective import Params
from gnflow.optim.protocol import AnyState, AnyTransform, Transform


class Empty(NamedTuple):
    """The state of a transform that keeps nothing."""


def chain(*transforms: AnyTransform) -> Transform[tuple[AnyState, ...]]:
    """Each transform works on the updates of the one before."""

    def init(params: Params) -> tuple[AnyState, ...]:
        return tuple(transform.init(params) for transform in transforms)

    def update(gradients: Params, state: tuple[AnyState, ...], params: Params) -> tuple[Params, tuple[AnyState, ...]]:
        states = []
        for transform, inner in zip(transforms, state, strict=True):
            gradients, inner = transform.update(gradients, inner, params)
            states.append(inner)
        return gradients, tuple(states)

    return Transform(init, update)


def partition(transforms: Mapping[str, AnyTransform], routes: Mapping[str, str]) -> Transform[dict[str, AnyState]]:
    """Each parameter goes to the transform that `routes` names for it. Raises KeyError for one without a route."""

    def part(rule: str, tree: Params) -> Params:
        return trees.pick(tree, [name for name in tree if routes[name] == rule])

    used = [rule for rule in transforms if rule in set(routes.values())]

    def init(params: Params) -> dict[str, AnyState]:
        return {rule: transforms[rule].init(part(rule, params)) for rule in used}

    def update(gradients: Params, state: dict[str, AnyState], params: Params) -> tuple[Params, dict[str, AnyState]]:
        merged: Params = {}
        states: dict[str, AnyState] = {}
        for rule in used:
            updates, states[rule] = transforms[rule].update(part(rule, gradients), state[rule], part(rule, params))
            merged |= updates
        return trees.pick(merged, params), states

    return Transform(init, update)


def clip_by_global_norm(largest: float) -> Transform[Empty]:
    """G <- G min(1, largest / |G|) over all parameters together."""

    def update(gradients: Params, state: Empty, params: Params) -> tuple[Params, Empty]:
        shrink: Tensor = (largest / trees.norm(gradients).clamp(min=torch.finfo(torch.float32).tiny)).clamp(max=1)
        return trees.scale(gradients, shrink), state

    return Transform(lambda params: Empty(), update)
