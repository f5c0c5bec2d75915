"""What the arguments of a factory mean: the class of the spec says it once, and `help()` of the factory repeats it."""

import inspect
import textwrap
from collections.abc import Callable
from typing import TypeVar

from gnflow.spec.base import Kind
from gnflow.spec.grammar import help_of, shapes

Factory = TypeVar("Factory", bound=Callable[..., object])

SCHEDULE = "Updates made so far (0-D) -> factor on the learning rate (0-D). Default: 1 throughout."


def described_by(kind: type[Kind]) -> Callable[[Factory], Factory]:
    """Adds the fields of `kind`, with their help and what is allowed, to the docstring of a factory."""

    def described(factory: Factory) -> Factory:
        given = [name for name in shapes(kind) if name != "kind" and name not in kind.around]
        lines = [_line(name, f"{help_of(kind, name)} {_allowed(kind, name)}") for name in given]
        told = "\n".join([*lines, _line("schedule", SCHEDULE)])
        factory.__doc__ = f"{inspect.cleandoc(factory.__doc__ or '')}\n\nArguments:\n{told}"
        return factory

    return described


def _allowed(kind: type[Kind], name: str) -> str:
    shape, default = shapes(kind)[name], kind.model_fields[name].default
    unit = f", in {shape.unit}" if shape.unit else ""
    return f"({shape.words}{unit}; default {default})"


def _line(name: str, text: str) -> str:
    return textwrap.fill(f"{name}: {' '.join(text.split())}", 100, initial_indent="    ", subsequent_indent="        ")
