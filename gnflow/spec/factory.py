"""Call the factory of a kind, and turn each fault of a plug-in into one clear error."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar, cast

from gnflow.errors import EnvironmentProblem, GnflowError
from gnflow.spec import classes
from gnflow.spec.base import Kind
from gnflow.spec.imports import describe_error, load_module

Thing = TypeVar("Thing")


def call_factory(kind: Kind, expected: type[Thing], *arguments: object, **named: object) -> Thing:
    """Return the object that the factory of `kind` makes.

    Raises EnvironmentProblem if the factory does not exist, raises, or returns another type. The message is one line
    that names the kind, its file and the cause.
    """
    factory = import_function(kind, "factory")
    with guard_plugin(kind, f"the factory `{kind.factory}`"):
        made = factory(*arguments, **named)
    if not isinstance(made, expected):
        found = "nothing" if made is None else f"a value of type `{type(made).__name__}`"
        raise make_fault(kind, f"the factory `{kind.factory}` returned {found}, expected {expected.__name__}")
    return made


def collect_parameters(kind: Kind) -> dict[str, object]:
    """Return the fields of the class that names the factory, by name, without those used around the object."""
    owner = next(base for base in type(kind).__mro__ if base.__dict__.get("factory"))
    apart = {"kind", *kind.around}
    return {name: getattr(kind, name) for name in getattr(owner, "model_fields", {}) if name not in apart}


def import_function(kind: Kind, role: str = "factory") -> Callable[..., object]:
    """Import the function that the class names as `factory` or `needs`. Raises EnvironmentProblem if there is none."""
    named, target = classes.find_origin(type(kind)), str(getattr(kind, role))
    name, _, attribute = target.partition(":")
    if not name or not attribute:
        found = f"the {role} of the class is `{target}`" if target else f"the class has no `{role}`"
        raise make_fault(kind, f'{found}; write `{role} = "module:function"` in it')
    made = getattr(load_module(name, named.folder if named else None, describe(kind)), attribute, None)
    if not callable(made):
        raise make_fault(kind, f"the {role} `{target}` is not there: the module has no function `{attribute}`")
    return cast("Callable[..., object]", made)


def check_needs(kind: Kind, root: Path) -> None:
    """Call the function that the class names as `needs`, which raises DataError or EnvironmentProblem."""
    if target := getattr(kind, "needs", ""):
        needs = import_function(kind, "needs")
        with guard_plugin(kind, f"`{target}`"):
            needs(kind, root)


@contextmanager
def guard_plugin(kind: Kind, what: str = "it") -> Iterator[None]:
    """Turn any exception of a plug-in's code into one line. `what` names the part that is called."""
    try:
        yield
    except GnflowError:
        raise
    except Exception as error:
        if type(kind).__module__.startswith("gnflow."):
            raise
        raise make_fault(kind, f"{what} raised {describe_error(error)}") from error


def make_fault(kind: Kind, problem: str) -> EnvironmentProblem:
    """Return an error that names the kind and its file."""
    return EnvironmentProblem(f"{describe(kind)}: {problem}")


def describe(kind: Kind) -> str:
    """Return the beginning of a sentence: the kind, its file and the place that names it."""
    if (named := classes.find_origin(type(kind))) is not None:
        return named.who
    file = getattr(sys.modules.get(type(kind).__module__), "__file__", None)
    return f"kind `{kind.kind}` ({file or type(kind).__module__})"
