"""The base classes of specs: frozen, strict, without unknown keys; a `kind` alone means its defaults."""

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
    """A mapping that is selected by its `kind` and names the factory of its object."""

    factory: ClassVar[str] = ""
    """`module:function`. It is imported when the object is built, not when a spec is checked."""
    around: ClassVar[frozenset[str]] = frozenset()
    """Fields that say what is done to the object once it is made. The factory is not given them."""

    if TYPE_CHECKING:

        @property
        def kind(self) -> str:
            """The name that selects this class. Every derived class has it as a field."""


def find_kind(model: type[Spec]) -> str:
    """Return the `kind` that selects `model`, or an empty text if it has none."""
    field = model.model_fields.get("kind")
    return field.default if field is not None and isinstance(field.default, str) else ""


def expand(value: object) -> object:
    """Return `{"kind": value}` for a text, which names a kind alone; return any other value as it is."""
    return {"kind": value} if isinstance(value, str) else value


# `inner: muon` reads as `inner: {kind: muon}`.
Shorthand = BeforeValidator(expand)


@dataclass(frozen=True)
class DefaultKind:
    """The shorthand for a union in which a mapping without `kind` is of this kind."""

    kind: str

    def __get_pydantic_core_schema__(self, source: object, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_before_validator_function(self._add_kind, handler(source))

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        return {**handler(schema), "defaultKind": self.kind}

    def _add_kind(self, value: object) -> object:
        told = expand(value)
        return {"kind": self.kind, **told} if isinstance(told, Mapping) else told


PLAIN = "plain"
"""The tag of a plain value in a union that also has mappings."""


@dataclass(frozen=True)
class OrPlain:
    """The shorthand for a union of mappings (tagged with their kinds) and a plain value (tagged `PLAIN`)."""

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
    """Mark a key that was added after specs had been digested: digests leave it out while it has its default."""
    return FieldInfo(exclude_if=lambda value: value == default)


Item = TypeVar("Item")
# A YAML list, kept as a tuple.
Listed = Annotated[tuple[Item, ...], Strict(False)]


@dataclass(frozen=True)
class OrOne:
    """A mark for a list of texts, of which a single text may stand for a list of one; it is written as a text again."""

    def __get_pydantic_core_schema__(self, source: object, handler: GetCoreSchemaHandler) -> CoreSchema:
        write = core_schema.plain_serializer_function_ser_schema(_write_short)
        return core_schema.no_info_before_validator_function(_read_short, handler(source), serialization=write)

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        found = handler(schema)
        return {"anyOf": [found["items"], found]}


def _read_short(value: object) -> object:
    return (value,) if isinstance(value, str) else value


def _write_short(items: tuple[str, ...]) -> str | list[str]:
    return items[0] if len(items) == 1 else list(items)


Count = Annotated[int, Field(ge=1)]
Rate = Annotated[float, Field(gt=0)]
Fraction = Annotated[float, Field(ge=0, lt=1)]

LONGEST_NAME = 255  # bytes, of a file or a directory


@dataclass(frozen=True)
class Unit:
    """The unit of a number, which `gnflow explain` shows."""

    name: str


@dataclass(frozen=True)
class Expects:
    """A description in words of the values that a pattern allows."""

    words: str


def refuse(message: str, *at: str | int | tuple[str | int, ...]) -> PydanticCustomError:
    """Return an error for a check that spans fields; the loader adds file, line and excerpt.

    `at` names keys beside the one that is checked. The error points at the first of them that is written in the spec.
    A tuple is the whole path of another place, from the root.
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
        raise refuse("a file cannot have such a name")
    return name


Name = Annotated[str, Field(min_length=1)]
# Of a file in the project. A symbolic link may lead elsewhere (DVC links to its cache); a name may not.
Path = Annotated[str, Field(min_length=1), AfterValidator(_require_inside)]
# Names of files or patterns; a single one needs no brackets.
Paths = Annotated[tuple[Path, ...], Strict(False), Field(min_length=1), OrOne()]


def join_with_or(names: Sequence[str]) -> str:
    """Join names as in `a, b or c`."""
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} or {names[-1]}"
