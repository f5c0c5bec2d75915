"""From a kind of a spec to the object that its factory makes."""

import sys
from collections.abc import Callable
from typing import cast

from gnflow.errors import EnvironmentProblem, GnflowError
from gnflow.spec import kinds
from gnflow.spec.base import Kind
from gnflow.spec.imports import module, told


def parameters(kind: Kind) -> dict[str, object]:
    """The fields of the class that names the factory, by name, without `kind`."""
    owner = next(base for base in type(kind).__mro__ if base.__dict__.get("factory"))
    return {name: getattr(kind, name) for name in getattr(owner, "model_fields", {}) if name != "kind"}


def made_by(kind: Kind, named: dict[str, object], *surroundings: object, **more: object) -> object:
    """What the factory of `kind` returns.

    Raises EnvironmentProblem, in one line that names the kind, its file and the cause, for a factory that is not there
    or that raises.
    """
    factory = imported(kind)
    try:
        return factory(*surroundings, **named, **more)
    except GnflowError:
        raise
    except Exception as error:
        if kinds.origin_of(type(kind)) is None:
            raise
        raise EnvironmentProblem(f"{who(kind)}: the factory `{kind.factory}` raised {told(error)}") from None


def imported(kind: Kind) -> Callable[..., object]:
    """The factory itself."""
    named = kinds.origin_of(type(kind))
    name, _, attribute = kind.factory.partition(":")
    if not attribute:
        raise EnvironmentProblem(f'{who(kind)}: the class has no `factory`; write `factory = "module:function"` in it')
    found = getattr(module(name, named.folder if named else None, who(kind)), attribute, None)
    if not callable(found):
        raise EnvironmentProblem(f"{who(kind)}: the factory `{kind.factory}` is not there: no function `{attribute}`")
    return cast("Callable[..., object]", found)


def unfit(kind: Kind, made: object, expected: str) -> EnvironmentProblem:
    """That the factory of `kind` returned something else."""
    return EnvironmentProblem(
        f"{who(kind)}: the factory `{kind.factory}` returned {_described(made)}, expected {expected}"
    )


def who(kind: Kind) -> str:
    """The kind, its file and where it is named: the beginning of a sentence."""
    named = kinds.origin_of(type(kind))
    if named is not None:
        return named.who
    file = getattr(sys.modules.get(type(kind).__module__), "__file__", None)
    return f"kind `{kind.kind}` ({file or type(kind).__module__})"


def _described(made: object) -> str:
    return "nothing" if made is None else f"a value of type `{type(made).__name__}`"
