"""What every part of a spec shares: frozen, strict, no unknown key, and `kind` alone meaning its defaults."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import TYPE_CHECKING, Annotated, ClassVar, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
    Strict,
)
from pydantic.fields import FieldInfo
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, PydanticCustomError, core_schema


class Spec(BaseModel):
    """One mapping of a spec file. Attribute docstrings are the help that `gnflow explain` and the schema show."""

    model_config = ConfigDict(
        frozen=True,
        strict=True,
        extra="forbid",
        allow_inf_nan=False,
    )


class Kind(Spec):
    """A mapping that its `kind` selects among others, and that says what makes an object of it."""

    factory: ClassVar[str] = ""
    """`module:function`. It is imported when the object is built, not when a spec is checked."""

    if TYPE_CHECKING:

        @property
        def kind(self) -> str:
            """The name that selects this class. Every class below has it as a field."""


def find_kind(model: type[Spec]) -> str:
    """The `kind` that selects `model`; empty where it has none."""
    field = model.model_fields.get("kind")
    return field.default if field is not None and isinstance(field.default, str) else ""


def expand(value: object) -> object:
    """The mapping that the name of a kind alone stands for; anything else as it is."""
    return {"kind": value} if isinstance(value, str) else value


# `inner: muon` reads as `inner: {kind: muon}`.
Shorthand = BeforeValidator(expand)


@dataclass(frozen=True)
class DefaultKind:
    """The shorthand for a union whose mappings may leave their `kind` out: it is this one then."""

    kind: str

    def __get_pydantic_core_schema__(self, source: object, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_before_validator_function(self._add_kind, handler(source))

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        return {**handler(schema), "defaultKind": self.kind}

    def _add_kind(self, value: object) -> object:
        told = expand(value)
        return {"kind": self.kind, **told} if isinstance(told, Mapping) else told


PLAIN = "plain"
"""The tag of a plain value where a mapping may stand as well."""


@dataclass(frozen=True)
class OrPlain:
    """The shorthand for a union of mappings, each tagged with its kind, and of a plain value, tagged `PLAIN`."""

    kinds: tuple[str, ...]

    def __get_pydantic_core_schema__(self, source: object, handler: GetCoreSchemaHandler) -> CoreSchema:
        tagged = handler.generate_schema(Annotated[source, Discriminator(self._find_tag)])
        return core_schema.no_info_before_validator_function(self._expand_named, tagged)

    def _expand_named(self, value: object) -> object:
        return expand(value) if value in self.kinds else value

    def _find_tag(self, value: object) -> str | None:
        kind = value.get("kind") if isinstance(value, Mapping) else getattr(value, "kind", PLAIN)
        return kind if isinstance(kind, str) else None


def mark_later(default: object) -> FieldInfo:
    """Marks a key that came after the first specs had been digested: at its default it is in no digest."""
    return FieldInfo(exclude_if=lambda value: value == default)


Item = TypeVar("Item")
# A YAML list, kept as a tuple.
Listed = Annotated[tuple[Item, ...], Strict(False)]

Count = Annotated[int, Field(ge=1)]
Rate = Annotated[float, Field(gt=0)]
Fraction = Annotated[float, Field(ge=0, lt=1)]

LONGEST_NAME = 255  # bytes, of a file or a directory


@dataclass(frozen=True)
class Unit:
    """What a number counts or measures, for `gnflow explain`."""

    name: str


@dataclass(frozen=True)
class Expects:
    """In words, what a pattern asks for."""

    words: str


def refuse(message: str, *at: str | int | tuple[str | int, ...]) -> PydanticCustomError:
    """An error of our own, for checks that span fields; the loader adds file, line and excerpt.

    `at` names keys beside the one that is checked; the first that is written in the spec is pointed at. A tuple is the
    whole path of another place, from the root.
    """
    return PydanticCustomError("gnflow", "{message}", {"message": message, "at": at})


def _require_inside(name: str) -> str:
    path = PurePath(name)
    if path.is_absolute() or ".." in path.parts:
        raise refuse(
            f"`{name}` leads outside the project; write it relative to the project root, "
            "and link or copy what lies elsewhere into it"
        )
    if "\0" in name or any(len(part.encode()) > LONGEST_NAME for part in path.parts):
        raise refuse("no file can have such a name")
    return name


Name = Annotated[str, Field(min_length=1)]
# Of a file in the project. A symbolic link may lead elsewhere (DVC links to its cache); a name may not.
Path = Annotated[str, Field(min_length=1), AfterValidator(_require_inside)]


def join_with_or(names: Sequence[str]) -> str:
    """`a, b or c`."""
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} or {names[-1]}"
