"""Write an experiment in full, and compute its digest."""

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from typing import get_args

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from gnflow.spec.base import OrOne, Spec
from gnflow.spec.experiment import Experiment
from gnflow.spec.problems import UNPRINTABLE
from gnflow.spec.scalar import Refused, parse_scalar
from gnflow.spec.tree import Plain

_BARE = re.compile(r"[A-Za-z][A-Za-z0-9_./+-]*")


def format_resolved(experiment: Experiment) -> str:
    """Return the spec with every default written out, as YAML that `load` reads."""
    return "\n".join(_format_block(make_tree(experiment), "")) + "\n"


def make_tree(spec: Spec) -> dict[str, Plain]:
    """Return every key with its value, defaults included."""
    return {
        name: _make_short(field, make_plain(getattr(spec, name))) for name, field in type(spec).model_fields.items()
    }


def _make_short(field: FieldInfo, value: Plain) -> Plain:
    """Return a list of one without its brackets where the spec may leave them out."""
    members = get_args(field.annotation)  # the marks of an optional list stand inside its union
    marks = [*field.metadata, *(mark for member in members for mark in getattr(member, "__metadata__", ()))]
    single = isinstance(value, list) and len(value) == 1 and any(isinstance(mark, OrOne) for mark in marks)
    return value[0] if single and isinstance(value, list) else value


def make_plain(value: object) -> Plain:
    """Convert a value of a spec to mappings, lists and scalars."""
    if isinstance(value, Spec):
        return make_tree(value)
    if isinstance(value, tuple):
        return [make_plain(item) for item in value]
    assert value is None or isinstance(value, (str, int, float, bool))
    return value


def format_lines(tree: Mapping[str, object]) -> list[str]:
    """Return a tree of plain values as lines of YAML."""
    return list(_format_block(tree, ""))


def digest(value: BaseModel | Mapping[str, object]) -> str:
    """Return the SHA-256 of the values, in any order. Keys marked with `mark_later` are left out at their defaults."""
    plain = value.model_dump(mode="json") if isinstance(value, BaseModel) else dict(value)
    canonical = json.dumps(plain, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(canonical.encode()).hexdigest()


def _format_block(values: Mapping[str, object], indent: str) -> Iterator[str]:
    for key, value in values.items():
        if isinstance(value, dict) and value:
            yield f"{indent}{key}:"
            yield from _format_block(value, indent + "  ")
        elif isinstance(value, list) and any(isinstance(item, dict) for item in value):
            yield f"{indent}{key}:"
            for item in value:
                yield from _format_item(item, indent + "  ")
        else:
            yield f"{indent}{key}: {format_value(value)}"


def _format_item(value: object, indent: str) -> Iterator[str]:
    if isinstance(value, dict) and value:
        first, *rest = _format_block(value, indent + "  ")
        yield f"{indent}- {first.strip()}"
        yield from rest
    else:
        yield f"{indent}- {format_value(value)}"


def format_value(value: object) -> str:
    """Return one value as YAML on one line."""
    if isinstance(value, list):
        return f"[{', '.join(map(format_value, value))}]"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {format_value(inner)}" for key, inner in value.items()) + "}"
    if not isinstance(value, str):
        return json.dumps(value, allow_nan=False)
    if _BARE.fullmatch(value) and _is_text(value):
        return value
    return UNPRINTABLE.sub(lambda found: f"\\u{ord(found[0]):04x}", json.dumps(value, ensure_ascii=False))


def _is_text(value: str) -> bool:
    try:
        return isinstance(parse_scalar(value), str)
    except Refused:
        return False
