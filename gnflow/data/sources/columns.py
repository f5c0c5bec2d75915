"""Find columns by name. A dot leads into a mapping, as in `meta.body`, unless a column has the dot in its own name."""

from collections.abc import Iterator, Mapping
from difflib import get_close_matches

import polars

from gnflow.errors import DataError


def find_field(row: Mapping[str, object], column: str, place: str) -> object:
    """Find the value of a row under `column`. Raises DataError that names the existing columns."""
    if column in row:
        return row[column]
    first, dot, rest = column.partition(".")
    inner = row.get(first)
    if dot and isinstance(inner, Mapping) and rest in _list_names(inner):
        return find_field(inner, rest, place)
    raise explain_missing(column, list(_list_names(row)), place)


def find_column(schema: polars.Schema, column: str, place: str) -> tuple[polars.Expr, polars.DataType]:
    """Find a column of a table and its type. Raises DataError that names the existing columns."""
    if column in schema:
        return polars.col(column), schema[column]
    first, *steps = column.split(".")
    if first in schema:
        expr, kind = polars.col(first), schema[first]
        for step in steps:
            inner = {part.name: part.dtype for part in kind.fields} if isinstance(kind, polars.Struct) else {}
            if step not in inner:
                break
            expr, kind = expr.struct.field(step), _instantiate(inner[step])
        else:
            return expr, kind
    raise explain_missing(column, list(_list_columns(dict(schema))), place)


def explain_missing(column: str, columns: list[str], place: str) -> DataError:
    """Make the error for a missing column, which names the existing ones."""
    inside = [name for name in columns if name.rpartition(".")[2] == column]
    near = inside or get_close_matches(column, columns, n=1)
    hint = f"did you mean `{near[0]}`?" if near else "name one of them in data.source.column"
    return DataError(f"{place} has no column `{column}`; it has {', '.join(columns) or 'no columns'}\n{hint}")


def _list_names(row: Mapping[str, object]) -> Iterator[str]:
    for name, value in row.items():
        yield name
        if isinstance(value, Mapping):
            yield from (f"{name}.{inner}" for inner in _list_names(value))


def _list_columns(fields: Mapping[str, object]) -> Iterator[str]:
    for name, kind in fields.items():
        yield name
        if isinstance(kind, polars.Struct):
            inner = {part.name: part.dtype for part in kind.fields}
            yield from (f"{name}.{below}" for below in _list_columns(inner))


def _instantiate(kind: object) -> polars.DataType:
    """Return a type as an object, since a struct may name its class alone."""
    made = kind() if isinstance(kind, type) else kind
    assert isinstance(made, polars.DataType)
    return made
