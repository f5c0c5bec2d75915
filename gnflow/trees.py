"""Arithmetic on `dict[str, Tensor]`, and names for the tensors of a nested state."""

from collections.abc import Callable, Iterable
from typing import TypeVar

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from gnflow.objective import Params

Tree = TypeVar("Tree")


def map_tensors(function: Callable[[Tensor], Tensor], tree: Tree) -> Tree:
    """Apply `function` to every tensor of a nested state and keeps the nesting of tuples and dicts."""
    result: Tree = pytree.tree_map(function, tree)
    return result


def list_tensors(tree: object) -> list[Tensor]:
    """List the tensors in nested tuples, lists and dicts."""
    return [leaf for leaf in pytree.tree_leaves(tree) if isinstance(leaf, Tensor)]


def add(a: Params, b: Params) -> Params:
    """Return a + b."""
    return {name: a[name] + b[name] for name in a}


def subtract(a: Params, b: Params) -> Params:
    """Return a - b."""
    return {name: a[name] - b[name] for name in a}


def scale(a: Params, factor: float | Tensor) -> Params:
    """Return factor a."""
    return {name: factor * value for name, value in a.items()}


def move_along(origin: Params, direction: Params, alpha: float | Tensor) -> Params:
    """Return origin + alpha direction."""
    return {name: value + alpha * direction[name] for name, value in origin.items()}


def move_towards(origin: Params, goal: Params, alpha: float | Tensor) -> Params:
    """Return origin + alpha (goal - origin). The whole of goal - origin is never in memory."""
    return {name: value + alpha * (goal[name] - value) for name, value in origin.items()}


def select(condition: Tensor, a: Params, b: Params) -> Params:
    """Return a if the 0-D `condition` holds, else b."""
    return {name: torch.where(condition, value, b[name]) for name, value in a.items()}


def dot(a: Params, b: Params) -> Tensor:
    """Return <a, b>, 0-D."""
    return torch.stack([(a[name] * b[name]).sum() for name in a]).sum()


def norm(a: Params) -> Tensor:
    """Return the Euclidean norm over all tensors, 0-D."""
    return dot(a, a).sqrt()


def clone(tree: Tree) -> Tree:
    """Copy every tensor of a nested state."""
    return map_tensors(torch.clone, tree)


def zeros(a: Params) -> Params:
    """Return zeros in the shapes of `a`."""
    return {name: torch.zeros_like(value) for name, value in a.items()}


def flatten(a: Params) -> Tensor:
    """Join all entries into one vector."""
    return torch.cat([value.flatten() for value in a.values()])


def unflatten(vector: Tensor, like: Params) -> Params:
    """Undo `flatten`: returns views of `vector` in the shapes of `like`."""
    parts = torch.split(vector, [value.numel() for value in like.values()])
    return {name: part.view(value.shape) for part, (name, value) in zip(parts, like.items(), strict=True)}


def pick(a: Params, names: Iterable[str]) -> Params:
    """Return the part of `a` that has these names."""
    return {name: a[name] for name in names}


def list_leaves(tree: object) -> list[tuple[tuple[str, ...], Tensor]]:
    """List every tensor of a nested state with its path."""
    paths, _ = pytree.tree_flatten_with_path(tree)
    return [(tuple(_label(key) for key in path), leaf) for path, leaf in paths]


def map_named(function: Callable[[tuple[str, ...], Tensor], Tensor], tree: Tree) -> Tree:
    """Apply `function` to every tensor of a nested state together with its path, and keeps the nesting."""
    result: Tree = pytree.tree_map_with_path(lambda path, leaf: function(tuple(map(_label, path)), leaf), tree)
    return result


def name_tensors(tree: object) -> dict[str, Tensor]:
    """Map the path of every tensor, for example `inner/momentum/blocks.0.attention.query`, to the tensor."""
    return {"/".join(path): leaf for path, leaf in list_leaves(tree)}


def fill_tensors(template: Tree, tensors: dict[str, Tensor]) -> Tree:
    """Fill the nesting of `template` with named tensors. Undoes `name_tensors`; raises KeyError for a missing one."""
    paths, structure = pytree.tree_flatten_with_path(template)
    leaves = [tensors["/".join(_label(key) for key in path)] for path, _ in paths]
    result: Tree = pytree.tree_unflatten(leaves, structure)
    return result


def _label(key: object) -> str:
    match key:
        case pytree.MappingKey():
            return str(key.key)
        case pytree.GetAttrKey():
            return key.name
        case pytree.SequenceKey():
            return str(key.idx)
        case _:
            raise TypeError(f"expected a key of a mapping, a field or an index, got {key!r}")
