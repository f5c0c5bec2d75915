"""Cohorts: groups of parameters that have always had gradients in the same steps, with the state of a transform.

The members of a cohort share one count of updates, and their tensors are stacked. When only some members have
gradients the cohort is split, so that each parameter's state is the same as if it were alone.
"""

from collections.abc import Callable, Mapping
from typing import NamedTuple, TypeAlias

import torch
from torch import Tensor

from gnflow import trees
from gnflow.objective import Params
from gnflow.optim.protocol import AnyState, AnyTransform
from gnflow.optim.stacks import Stacks, find_stacked_shape
from gnflow.optim.states import find_problem_within

Update: TypeAlias = Callable[[Params, AnyState, Params], tuple[Params, AnyState]]
Own: TypeAlias = dict[str, Tensor]
"""One parameter's state by path, such as `first`, or `matrices/momentum` in a partition, without the stack's axis."""


class Cohort(NamedTuple):
    """Stacks, with a transform's state over them and its update.

    `ratios` are the learning rates in the state over the first rate of the group; `lr` is the first rate as last set.
    """

    stacks: Stacks
    state: AnyState
    ratios: Mapping[str, float]
    update: Update
    lr: float | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the parameters."""
        return tuple(self.stacks.shapes)


def build_stacks(transform: AnyTransform, params: Params) -> Stacks:
    """Build stacks, each of one part of the transform, one type and one device, named after its first member."""
    part = transform.rule or (lambda name: "")
    rules = {name: f"{part(name)} {w.dtype} {w.device}" for name, w in params.items()}
    each = set(rules.values()) if transform.each else ()
    by_rule = Stacks.by_rule(rules, {name: tuple(w.shape) for name, w in params.items()}, each)
    first = {stack: names[0] for stack, names in by_rule.members.items()}
    return Stacks(
        {first[stack]: names for stack, names in by_rule.members.items()},
        by_rule.shapes,
        {first[stack]: rule for stack, rule in by_rule.rules.items()},
        frozenset(first[stack] for stack in by_rule.apart),
    )


def split_state(cohort: Cohort) -> dict[str, Own]:
    """Split a cohort's state into views for each member. All members share counts and rates."""
    result: dict[str, Own] = {name: {} for name in cohort.names}
    for path, leaf in trees.list_leaves(cohort.state):
        stack = path[-1]
        if leaf.ndim and stack in cohort.stacks.members:
            parts = cohort.stacks.split_members(stack, leaf)
            for name, part in zip(cohort.stacks.members[stack], parts, strict=True):
                alone = part.ndim > 1 and len(part) == 1 and stack not in cohort.stacks.apart
                result[name]["/".join(path[:-1])] = part.squeeze(0) if alone else part
        else:
            for own in result.values():
                own["/".join(path)] = leaf
    return result


def join_states(template: AnyState, stacks: Stacks, states: Mapping[str, Own]) -> AnyState:
    """Undo `split_state`, in the types and on the device of `template`.

    Raises ValueError for a state of another transform.
    """

    def find_part(name: str, key: str, form: Tensor) -> Tensor:
        if key not in states[name]:
            raise ValueError(f"the state of `{name}` has no `{key}`: it is of another optimizer")
        if states[name][key].numel() != form.numel():
            raise ValueError(
                f"`{key}` of `{name}` has shape {tuple(states[name][key].shape)}, expected {tuple(form.shape)}"
            )
        return states[name][key].to(form).reshape(form.shape)

    def fill(path: tuple[str, ...], leaf: Tensor) -> Tensor:
        stack = path[-1]
        if leaf.ndim and stack in stacks.members:
            names = zip(stacks.members[stack], stacks.split_members(stack, leaf), strict=True)
            return torch.cat([find_part(name, "/".join(path[:-1]), form) for name, form in names])
        return find_part(next(iter(stacks.shapes)), "/".join(path), leaf).clone()

    return trees.map_named(fill, template)


def is_rate(path: str, leaf: Tensor) -> bool:
    """Tell whether a tensor of a state is a learning rate."""
    return leaf.ndim == 0 and path.rsplit("/", 1)[-1] == "learning_rate"


def find_rates(state: AnyState) -> dict[str, float]:
    """Find the learning rates by path, in the order of the transform's parts."""
    return {path: leaf.item() for path, leaf in trees.name_tensors(state).items() if is_rate(path, leaf)}


def find_first_rate(transform: AnyTransform, params: Params) -> float:
    """Find the learning rate of the first part that has one.

    Raises what the transform's `init` raises for such shapes, and ValueError for a state without a count or a rate.
    """
    shapes = {
        name: tuple(w.shape) if transform.each else find_stacked_shape(tuple(w.shape)) for name, w in params.items()
    }
    if not shapes:
        return 0.0
    state = transform.init({name: torch.empty(shape, device="meta") for name, shape in shapes.items()})
    if problem := find_problem_within(state):
        raise ValueError(f"as_torch cannot use this transform: {problem}")
    # A stack of no matrices takes no memory, but its state still has the rates.
    none = transform.init({name: torch.zeros((0, *shape[1:])) for name, shape in shapes.items()})
    return next(iter(find_rates(none).values()), 0.0)


def set_rate(cohort: Cohort, lr: float) -> Cohort:
    """Set the first learning rate of a cohort, and the others in proportion."""
    if lr == cohort.lr:
        return cohort

    def reset(path: tuple[str, ...], leaf: Tensor) -> Tensor:
        name = "/".join(path)
        return torch.full_like(leaf, lr * cohort.ratios[name]) if is_rate(name, leaf) else leaf

    return cohort._replace(state=trees.map_named(reset, cohort.state), lr=lr)
