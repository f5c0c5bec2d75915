"""Shows the help on a factory's arguments, which the class of the spec has, in `help()` of the factory."""

import inspect
import textwrap
from collections.abc import Callable
from typing import TypeVar

from gnflow.spec.base import Kind
from gnflow.spec.grammar import find_help, list_shapes

Factory = TypeVar("Factory", bound=Callable[..., object])

SCHEDULE = "Updates made so far (0-D) -> factor on the learning rate (0-D). Default: 1 throughout."


def add_help_of(kind: type[Kind]) -> Callable[[Factory], Factory]:
    """Add the fields of `kind` that a factory takes, with their help and allowed values, to its docstring."""

    def describe(factory: Factory) -> Factory:
        lines = [
            _write_line(name, f"{find_help(kind, name)} {_describe_allowed(kind, name)}")
            for name in list_shapes(kind)
            if name != "kind" and name not in kind.around
        ]
        listed = "\n".join([*lines, _write_line("schedule", SCHEDULE)])
        factory.__doc__ = f"{inspect.cleandoc(factory.__doc__ or '')}\n\nArguments:\n{listed}"
        return factory

    return describe


def _describe_allowed(kind: type[Kind], name: str) -> str:
    shape, default = list_shapes(kind)[name], kind.model_fields[name].default
    unit = f", in {shape.unit}" if shape.unit else ""
    allowed = shape.allowed.replace("`null`", "`None`")
    return f"({allowed}{unit}; default {default})"


def _write_line(name: str, text: str) -> str:
    return textwrap.fill(f"{name}: {' '.join(text.split())}", 100, initial_indent="    ", subsequent_indent="        ")
