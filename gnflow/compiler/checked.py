"""Check a plug-in's transform while a run is planned.

The plan runs every function of a transform on the meta device, where nothing is computed. So a wrong shape or state is
found before a byte is allocated. On a real device the functions are called without checks.
"""

from collections.abc import Callable
from typing import TypeVar

from torch import Tensor
from torch.utils import _pytree as pytree

from gnflow.errors import EnvironmentProblem, GnflowError
from gnflow.objective import Params
from gnflow.optim.protocol import AnyState, AnyTransform
from gnflow.optim.states import find_problem
from gnflow.spec.imports import describe_error

Result = TypeVar("Result")


def check_transform(transform: AnyTransform, who: str) -> AnyTransform:
    """Wrap a transform in checks. The message of an error begins with `who`.

    On the meta device `init`, `update` and `refresh` raise EnvironmentProblem if the transform's function raises or if
    its result does not fit.
    """

    def ask(name: str, function: Callable[..., Result], *arguments: object) -> Result:
        try:
            return function(*arguments)
        except GnflowError:
            raise
        except Exception as error:
            raise EnvironmentProblem(f"{who}: `{name}` raised {describe_error(error)}") from None

    def init(params: Params) -> AnyState:
        if not _is_planned(params):
            return transform.init(params)
        state = ask("init", transform.init, params)
        if problem := find_problem(state):
            raise EnvironmentProblem(f"{who}: {problem}")
        return state

    def update(gradients: Params, state: AnyState, params: Params) -> tuple[Params, AnyState]:
        if not _is_planned(params):
            return transform.update(gradients, state, params)
        found: object = ask("update", transform.update, gradients, state, params)
        if not isinstance(found, tuple) or len(found) != 2:
            raise EnvironmentProblem(f"{who}: `update` returned a {type(found).__name__}; expected (updates, state)")
        updates, after = found
        _require_like(who, "update", updates, params)
        _require_form(who, "update", after, state)
        return updates, after

    def refresh(gradients: Params, state: AnyState) -> AnyState:
        assert transform.refresh is not None
        if not _is_planned(gradients):
            return transform.refresh(gradients, state)
        after = ask("refresh", transform.refresh, gradients, state)
        _require_form(who, "refresh", after, state)
        return after

    return transform._replace(init=init, update=update, refresh=None if transform.refresh is None else refresh)


def _is_planned(params: Params) -> bool:
    return any(value.is_meta for value in params.values())


def _require_like(who: str, name: str, updates: object, params: Params) -> None:
    if not isinstance(updates, dict) or set(updates) != set(params):
        given = ", ".join(updates) if isinstance(updates, dict) else type(updates).__name__
        raise EnvironmentProblem(f"{who}: `{name}` returned updates of {given}; expected those of {', '.join(params)}")
    for parameter, value in params.items():
        shape = tuple(updates[parameter].shape) if isinstance(updates[parameter], Tensor) else updates[parameter]
        if shape != tuple(value.shape):
            raise EnvironmentProblem(
                f"{who}: the update of `{parameter}` has shape {shape}; expected {tuple(value.shape)}"
            )


def _require_form(who: str, name: str, after: AnyState, before: AnyState) -> None:
    if problem := find_problem(after):
        raise EnvironmentProblem(f"{who}: after `{name}` {problem}")
    (new, form), (old, expected) = pytree.tree_flatten_with_path(after), pytree.tree_flatten_with_path(before)
    if form != expected:
        raise EnvironmentProblem(
            f"{who}: `{name}` returned a state of another structure than the one that it was given"
        )
    for (path, one), (_, two) in zip(new, old, strict=True):
        if one.shape != two.shape or one.dtype != two.dtype:
            raise EnvironmentProblem(
                f"{who}: `{name}` turned `{pytree.keystr(path).lstrip('.')}` of its state from {_describe_form(two)} "
                f"into {_describe_form(one)}"
            )


def _describe_form(tensor: Tensor) -> str:
    return f"{str(tensor.dtype).removeprefix('torch.')} {tuple(tensor.shape)}"
