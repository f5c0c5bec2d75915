"""`gnflow explain`: show a value, its meaning, and the line that set it."""

import json as encoder
import textwrap
from collections.abc import Sequence
from pathlib import Path

from gnflow.spec.canonical import format_value
from gnflow.spec.explain import Explanation, explain_all, explain_below
from gnflow.spec.kinds import use_kinds_of
from gnflow.spec.load import load
from gnflow.spec.problems import quote_origin


def explain(spec: Path, key: str | None, *, sets: Sequence[str], json: bool) -> int:
    """Print `key` and all keys inside it, or all keys if `key` is None. Return 0."""
    loaded = load(spec, sets)
    with use_kinds_of(loaded.workspace):
        return _print_rows(explain_below(loaded, key) if key else explain_all(loaded), key, json)


def _print_rows(rows: Sequence[Explanation], key: str | None, json: bool) -> int:
    if json:
        found = rows[0].to_json() if key else [row.to_json() for row in rows if row.single]
        print(encoder.dumps(found, indent=2, ensure_ascii=False))
        return 0
    if key:
        print(_format_entry(rows[0]))
        rows = rows[1:]
    if leaves := [row for row in rows if row.single]:
        print(("\n" if key else "") + _format_table(leaves))
    return 0


def _format_entry(row: Explanation) -> str:
    unit = f" ({row.shape.unit})" if row.shape.unit else ""
    lines = [f"{row.key} = {_format_value(row)}{unit}" if row.single else row.key]
    lines += textwrap.wrap(row.help, 100, initial_indent="  ", subsequent_indent="  ")
    lines.append(f"  allowed  {row.allowed}")
    where = quote_origin(row.origin).replace("\n", "\n" + " " * 11)
    lines.append(f"  from     {row.origin}{where}")
    return "\n".join(lines)


def _format_table(rows: Sequence[Explanation]) -> str:
    cells = [(row.key, _format_value(row), str(row.origin)) for row in rows]
    key, value = (max(len(cell[column]) for cell in cells) for column in (0, 1))
    return "\n".join(f"{name:<{key}}  {text:<{min(value, 40)}}  {origin}" for name, text, origin in cells)


def _format_value(row: Explanation) -> str:
    return "[]" if row.value == () else format_value(row.value)
