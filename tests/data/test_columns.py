"""A column may lie inside a mapping: `meta.body`. What is missing is named with what there is, inside as well."""

import json
from pathlib import Path

import polars
import pytest

from gnflow.data.sources.columns import find_column, find_field
from gnflow.data.sources.faults import require_sound
from gnflow.data.sources.readers import read
from gnflow.errors import DataError

ROWS = [{"meta": {"body": f"text {i}", "deep": {"er": f"deep {i}"}}, "id": i} for i in range(3)]


def written(root: Path, ending: str) -> Path:
    path = root / f"rows.{ending}"
    if ending == "jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    else:
        polars.DataFrame(ROWS).write_parquet(path)
    return path


def texts(path: Path, column: str) -> list[str]:
    return [piece.text for piece in require_sound(read(path, column)) if piece.text]


@pytest.mark.parametrize("ending", ["jsonl", "parquet"])
def test_a_nested_column_is_read(ending: str, tmp_path: Path) -> None:
    path = written(tmp_path, ending)
    assert texts(path, "meta.body") == ["text 0", "text 1", "text 2"]
    assert texts(path, "meta.deep.er") == ["deep 0", "deep 1", "deep 2"]


@pytest.mark.parametrize("ending", ["jsonl", "parquet"])
@pytest.mark.parametrize(
    ("column", "hint"),
    [
        ("body", "did you mean `meta.body`?"),
        ("meta.bdy", "did you mean `meta.body`?"),
        ("meta.body.x", "did you mean `meta.body`?"),
        ("zzz", "name one of them in data.source.column"),
    ],
)
def test_a_missing_column_is_named_with_those_inside(column: str, hint: str, ending: str, tmp_path: Path) -> None:
    with pytest.raises(DataError) as raised:
        texts(written(tmp_path, ending), column)
    message = str(raised.value)
    assert f"no column `{column}`; it has meta, meta.body, meta.deep, meta.deep.er, id\n{hint}" in message


def test_a_name_with_a_dot_is_taken_as_it_is_first() -> None:
    row = {"meta.body": "outside", "meta": {"body": "inside"}}
    assert find_field(row, "meta.body", "row 1") == "outside"
    frame = polars.DataFrame([row])
    chosen, kind = find_column(frame.schema, "meta.body", "a.parquet")
    assert frame.select(chosen).item() == "outside"
    assert kind == polars.String


def test_a_row_without_the_inner_mapping_is_named(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"meta": {"body": "a"}}\n{"meta": null}\n')
    with pytest.raises(DataError, match=r"rows.jsonl:2 has no column `meta.body`; it has meta\n"):
        texts(path, "meta.body")
