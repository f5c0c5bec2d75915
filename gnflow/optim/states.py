"""Checks the state of a rule: it must have `updates` and `learning_rate`, and hold tensors alone."""

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from gnflow.optim.protocol import AnyState

FIELDS = {"updates": torch.int64, "learning_rate": torch.float64}


def find_problem(state: AnyState) -> str | None:
    """Say why this is not the state of a rule. Returns None if it is one."""
    if not isinstance(state, tuple) or not hasattr(state, "_fields"):
        return f"its state is a {type(state).__name__}, expected a NamedTuple with {_list_fields()}"
    for path, leaf in pytree.tree_flatten_with_path(state)[0]:
        if not isinstance(leaf, Tensor):
            return f"its state holds {leaf!r} at `{pytree.keystr(path).lstrip('.')}`, expected tensors alone"
    for name, dtype in FIELDS.items():
        value = getattr(state, name, None)
        if value is None:
            return f"its state has no field `{name}`; schedulers and the column `learning_rate` go by {_list_fields()}"
        if not isinstance(value, Tensor) or value.ndim or value.dtype is not dtype:
            form = f"{value.dtype} of shape {tuple(value.shape)}" if isinstance(value, Tensor) else repr(value)
            return f"`{name}` of its state is {form}, expected 0-D {str(dtype).removeprefix('torch.')}"
    return None


def find_problem_within(state: AnyState) -> str | None:
    """Say why a state is not one of rules: each part of a `partition` must be one, and one part of a `chain`."""
    if isinstance(state, Mapping):
        return next((problem for part in state.values() if (problem := find_problem_within(part))), None)
    if type(state) is tuple:
        problems = [find_problem_within(part) for part in state]
        return None if None in problems else problems[-1]
    return find_problem(state)


def _list_fields() -> str:
    kinds = [f"`{name}` (0-D {str(dtype).removeprefix('torch.')})" for name, dtype in FIELDS.items()]
    return " and ".join(kinds)
