"""Describe the grammar of specs in words: the allowed values of each key, its help and its unit."""

import ast
import inspect
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from itertools import pairwise
from types import NoneType, UnionType
from typing import Annotated, Literal, Union, get_args, get_origin

from annotated_types import Ge, Gt, Le, Lt, MinLen
from pydantic.fields import FieldInfo

from gnflow.spec.base import DefaultKind, Expects, OrOne, Spec, Unit, find_kind, join_with_or
from gnflow.spec.experiment import Experiment
from gnflow.spec.open import Choices, Open, list_usable
from gnflow.spec.tree import KeyPath, Node, Table, expand


@dataclass(frozen=True)
class Shape:
    """The values that are allowed in one place of a spec."""

    said: str
    """The allowed values, in words. Empty if they are kinds that are known only when a project is read."""
    models: Mapping[str, type[Spec]]
    """The allowed mappings, by `kind` (an empty text for a mapping without a kind)."""
    choices: tuple[str, ...] = ()
    """The allowed words, if only certain words are allowed."""
    items: tuple["Shape", ...] = ()
    """For a list: one shape for all items, or one for each item."""
    unit: str | None = None
    nullable: bool = False
    values: "Shape | None" = None
    """For a mapping whose keys are free: the shape of its values."""
    default: str = ""
    """The kind of a mapping that names none."""
    plain: bool = False
    """Whether a plain value is allowed besides the mappings."""

    @property
    def words(self) -> str:
        """The allowed values, in words, for example `a number greater than 0`."""
        return self.said or _describe_mapping(tuple(self.models))

    @property
    def allowed(self) -> str:
        """The allowed values, in words, including `null` if it is allowed."""
        return self.words + (", or `null`" if self.nullable else "")

    @property
    def open(self) -> bool:
        """Whether a project may add kinds."""
        return isinstance(self.models, Choices)

    @property
    def tagged(self) -> bool:
        """Whether pydantic puts the tag of a choice into the locations of errors."""
        return self.plain or self.open or len(self.models) > 1

    def find_item(self, index: int) -> "Shape | None":
        """Return the shape of one item, or None if this is no list."""
        return self.items[min(index, len(self.items) - 1)] if self.items else None

    @property
    def kinds(self) -> tuple[str, ...]:
        """The valid kinds."""
        return tuple(filter(None, self.models))

    def find_model(self, node: Node | None) -> type[Spec] | None:
        """Return the model that `node` must follow, or None if its `kind` does not determine one."""
        if not self.open and len(self.models) == 1:
            return next(iter(self.models.values()))
        mapping = expand(node) if node is not None else None
        return self.models.get(mapping.kind or self.default) if isinstance(mapping, Table) else None


ROOT = Shape("a mapping", {"": Experiment})


@cache
def list_shapes(model: type[Spec]) -> Mapping[str, Shape]:
    """Return the shape of every field of `model`."""
    return {name: _make_shape(field.annotation, field.metadata) for name, field in model.model_fields.items()}


def find_help(model: type[Spec], key: str) -> str:
    """Return the docstring under a field. It is read only on demand; pydantic would read all of them at every start."""
    return next((texts[key] for base in model.__mro__ if key in (texts := _read_docstrings(base))), "")


@cache
def _read_docstrings(model: type) -> Mapping[str, str]:
    if not issubclass(model, Spec):
        return {}
    try:
        (statements,) = ast.parse(textwrap.dedent(inspect.getsource(model))).body
    except OSError:  # installed without sources
        return {}
    assert isinstance(statements, ast.ClassDef)
    return {
        field.target.id: inspect.cleandoc(text.value.value)
        for field, text in pairwise(statements.body)
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name)
        if isinstance(text, ast.Expr) and isinstance(text.value, ast.Constant) and isinstance(text.value.value, str)
    }


def summarize(model: type[Spec]) -> str:
    """Return the first line of a model's docstring."""
    return (model.__doc__ or "").strip().partition("\n")[0]


def step_into(shape: Shape | None, node: Node | None, key: str | int) -> Shape | None:
    """Return the shape of the value under `key` of `node`; None if the grammar has no such place."""
    if shape is None:
        return None
    if isinstance(key, int):
        return shape.find_item(key)
    if shape.values:
        return shape.values
    model = shape.find_model(node)
    return list_shapes(model).get(key) if model else None


def walk_models(shape: Shape = ROOT, path: KeyPath = ()) -> Iterator[tuple[KeyPath, type[Spec]]]:
    """Yield every model of the grammar with a path that leads to it, the shallowest first."""
    level = [(shape, path)]
    while level:
        below: list[tuple[Shape, KeyPath]] = []
        for here, to_here in level:
            for _, model in list_usable(here.models):
                yield to_here, model
                below += [(inner, (*to_here, name)) for name, inner in list_shapes(model).items()]
            below += [(item, (*to_here, 0)) for item in here.items[:1]]
            below += [(here.values, (*to_here, "*"))] if here.values else []
        level = below


def _make_shape(annotation: object, marks: Sequence[object]) -> Shape:
    parameters = get_args(annotation)
    unit = next((mark.name for mark in marks if isinstance(mark, Unit)), None)
    if place := next((mark for mark in marks if isinstance(mark, Open)), None):
        return Shape("", place.choices, unit=unit, default=place.default)
    match get_origin(annotation):
        case special if special is Annotated:
            return _make_shape(parameters[0], [*marks, *_flatten(parameters[1:])])
        case special if special in (Union, UnionType):
            members = [_make_shape(member, marks) for member in parameters if member is not NoneType]
            nullable = NoneType in parameters
            if len(members) == 1:
                return replace(members[0], nullable=nullable)
            models = {kind: model for member in members for kind, model in member.models.items()}
            default = next((mark.kind for mark in marks if isinstance(mark, DefaultKind)), "")
            plain = list(dict.fromkeys(member.words for member in members if not member.models))
            words = ", or ".join([*plain, *([_describe_mapping(tuple(models))] if models else [])])
            beside = bool(plain and models)
            return Shape(words, models, unit=unit, nullable=nullable, default=default, plain=beside)
        case special if special is Literal:
            return Shape(join_with_or([f"`{choice}`" for choice in parameters]), {}, parameters, unit=unit)
        case special if special is dict:
            return Shape("a mapping", {}, values=_make_shape(parameters[1], ()))
        case special if special is tuple:
            items = tuple(_make_shape(item, ()) for item in parameters if item is not Ellipsis)
            words = _describe_list(items, len(items) if Ellipsis not in parameters else None, marks)
            single = f"{items[0].words}, or " if any(isinstance(mark, OrOne) for mark in marks) else ""
            return Shape(single + words, {}, items=items)
        case _:
            assert isinstance(annotation, type)
            if issubclass(annotation, Spec):
                return Shape(
                    _describe_mapping((find_kind(annotation),)), {find_kind(annotation): annotation}, unit=unit
                )
            choices = ("true", "false") if annotation is bool else ()
            return Shape(_describe_scalar(annotation, marks), {}, choices, unit=unit)


def _flatten(marks: Sequence[object]) -> list[object]:
    return [each for mark in marks for each in (mark.metadata if isinstance(mark, FieldInfo) else [mark])]


def _describe_mapping(kinds: Sequence[str]) -> str:
    return f"a mapping or the name of a kind ({join_with_or(kinds)})" if all(kinds) else "a mapping"


def _describe_list(items: Sequence[Shape], count: int | None, marks: Sequence[object]) -> str:
    least = next((mark.min_length for mark in marks if isinstance(mark, MinLen)), 0)
    size = f" of {count}" if count else f" of at least {least}" if least else ""
    return f"a list{size}, each {items[0].words}"


def _describe_scalar(kind: type, marks: Sequence[object]) -> str:
    for mark in marks:
        if isinstance(mark, Expects):
            return mark.words
    if kind is str:
        return "text that is not empty" if any(isinstance(mark, MinLen) for mark in marks) else "text"
    if kind is bool:
        return "`true` or `false`"
    return f"{'a whole number' if kind is int else 'a number'} {_describe_range(marks)}".strip()


def _describe_range(marks: Sequence[object]) -> str:
    least = next((mark.ge for mark in marks if isinstance(mark, Ge)), None)
    above = next((mark.gt for mark in marks if isinstance(mark, Gt)), None)
    most = next((mark.le for mark in marks if isinstance(mark, Le)), None)
    below = next((mark.lt for mark in marks if isinstance(mark, Lt)), None)
    if above is None and least is not None and most is not None:
        return f"from {least} to {most}"
    least = None if above is not None else least
    bounds = {"greater than": above, "of at least": least, "less than": below, "at most": most}
    return " and ".join(f"{words} {bound}" for words, bound in bounds.items() if bound is not None)
