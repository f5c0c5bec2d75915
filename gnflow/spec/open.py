"""Places of a spec that allow any kind of a group, including kinds that gnflow does not know."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Annotated, Any, Literal

from pydantic import Field, GetCoreSchemaHandler, GetJsonSchemaHandler, TypeAdapter
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, PydanticKnownError, core_schema

from gnflow.errors import EnvironmentProblem
from gnflow.spec import classes, kinds
from gnflow.spec.base import Kind, Spec, expand, find_kind
from gnflow.spec.named import Named


def keep_class(kind: type[Kind]) -> type[Spec]:
    """Return the class as the kind declares it."""
    return kind


@dataclass(frozen=True)
class Open:
    """A mark for a place of a spec that allows any kind of a group; a `kind` alone means its defaults."""

    group: str
    closed: tuple[type[Spec], ...] = ()
    """Kinds that are allowed here in addition and are in no group."""
    without: tuple[str, ...] = ()
    """Kinds of the group that are not allowed here."""
    default: str = ""
    """The kind of a mapping that names none."""
    seen_as: Callable[[type[Kind]], type[Spec]] = keep_class
    """A function from the class of a kind to the class of the mapping that is allowed here."""

    @property
    def choices(self) -> "Choices":
        """The classes that are allowed here, in the project that is being read."""
        return Choices(self)

    def __get_pydantic_core_schema__(self, source: object, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_plain_validator_function(self._validate)

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        found = handler(_make_adapter(tuple(self.choices.values())).core_schema)
        return {**found, "defaultKind": self.default} if self.default else found

    def _validate(self, value: object) -> object:
        told = expand(value)
        choices = self.choices
        if isinstance(told, Spec):
            if isinstance(told, (*self.closed, classes.find_base(self.group))):
                return self._convert(told)
            raise PydanticKnownError("model_attributes_type")
        if not isinstance(told, Mapping):
            raise PydanticKnownError("model_attributes_type")
        kind = told.get("kind", self.default)
        if kind == "" and "kind" not in told:
            raise PydanticKnownError("union_tag_not_found", {"discriminator": "'kind'"})
        if not isinstance(kind, str) or kind not in choices:
            expected = ", ".join(f"'{name}'" for name in choices)
            tag = {"discriminator": "'kind'", "tag": str(kind), "expected_tags": expected}
            raise PydanticKnownError("union_tag_invalid", tag)
        return _make_adapter((choices[kind],)).validate_python({**told, "kind": kind})

    def _convert(self, value: Spec) -> Spec:
        """Turn a value into the class that stands here, if it was made by another."""
        wanted = self.seen_as(type(value)) if isinstance(value, Kind) else type(value)
        return value if isinstance(value, wanted) else wanted.model_validate(dict(value))


class Choices(Mapping[str, type[Spec]]):
    """A map from each kind to the class that is allowed in an open place. A class is imported when it is accessed."""

    def __init__(self, place: Open) -> None:
        self._place = place
        self._closed = {find_kind(model): model for model in place.closed}

    def __getitem__(self, kind: str) -> type[Spec]:
        if kind in self._closed:
            return self._closed[kind]
        if (named := self._find(kind)) is None:
            raise KeyError(kind)
        return self._place.seen_as(classes.find_class(named))

    def __contains__(self, kind: object) -> bool:
        # Not by __getitem__: that would import the module of the kind.
        return kind in self._closed or (isinstance(kind, str) and self._find(kind) is not None)

    def __iter__(self) -> Iterator[str]:
        yield from (
            kind for kind in kinds.get_current().list_group(self._place.group) if kind not in self._place.without
        )
        yield from self._closed

    def __len__(self) -> int:
        return len(list(iter(self)))

    def _find(self, kind: str) -> Named | None:
        return None if kind in self._place.without else kinds.get_current().find(self._place.group, kind)


def list_usable(models: Mapping[str, type[Spec]]) -> Iterator[tuple[str, type[Spec]]]:
    """Yield the kinds whose classes can be imported, and skip broken plug-ins."""
    for kind in models:
        try:
            yield kind, models[kind]
        except EnvironmentProblem:
            continue


class _Nothing(Spec):
    """A second member for a union of one, which pydantic would not tag."""

    kind: Literal["-"] = "-"


@cache
def _make_adapter(models: tuple[type[Spec], ...]) -> TypeAdapter[Any]:
    union: Any = _Nothing if len(models) == 1 else models[0]
    for model in models if len(models) == 1 else models[1:]:
        union = union | model
    return TypeAdapter(Annotated[union, Field(discriminator="kind")])
