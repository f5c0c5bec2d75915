"""The class of a spec's section -> the function that makes an object of it."""

from collections.abc import Callable
from importlib import import_module

from gnflow.errors import EnvironmentProblem
from gnflow.spec.base import Kind
from gnflow.spec.grammar import kind_of


def imported(section: Kind) -> Callable[..., object]:
    """Imports the factory that the section's class names. Raises EnvironmentProblem with the kind and the cause."""
    where, kind = section.factory, f"kind `{kind_of(type(section))}`"
    if not where:
        name = f"{type(section).__module__}.{type(section).__qualname__}"
        raise EnvironmentProblem(f'{kind} has no factory; give {name} the line `factory = "module:function"`')
    module, colon, name = where.partition(":")
    if not (module and colon and name):
        raise EnvironmentProblem(f'{kind} has the factory "{where}"; expected "module:function"')
    try:
        found: object = getattr(import_module(module), name, None)
    except Exception as error:  # a module of somebody else may fail in any way
        cause = " ".join(str(error).split())
        raise EnvironmentProblem(
            f"{kind}: `{module}` cannot be imported for its factory: {type(error).__name__}: {cause}"
        ) from error
    if not callable(found):
        raise EnvironmentProblem(f"{kind}: `{module}` has no function `{name}`, which its factory names")
    return found
