import gzip
import json
import sys
from collections.abc import Callable
from pathlib import Path

import polars
import pytest
from corpora import documents, lines, text
from pydantic import ValidationError

from gnflow.data.dataset import Dataset
from gnflow.data.prepare import prepare
from gnflow.data.sources import readers
from gnflow.errors import DataError, EnvironmentProblem
from gnflow.workspace import Workspace

Written = Callable[..., Path]


def dataset(workspace: Workspace, *paths: str, context: int = 2, **options: object) -> Dataset:
    source = {"kind": "files", "paths": list(paths), **options}
    return prepare(text(source=source, tokenizer="bytes", context=context), workspace)


def failure(workspace: Workspace, *paths: str, **options: object) -> str:
    with pytest.raises(DataError) as caught:
        dataset(workspace, *paths, **options)
    assert caught.value.exit_code == 4
    assert not list(workspace.data.glob("*")) + list(workspace.data.glob(".*"))
    return str(caught.value)


def test_text_files_are_one_document_each_in_the_order_of_their_names(workspace: Workspace, written: Written) -> None:
    written("corpus/b.md", "second\r\n")
    written("corpus/a.txt", "\ufefffirst \u00e9")
    written("corpus/deep/c.txt", "third")
    written("corpus/notes.csv", "not text")
    found = dataset(workspace, "corpus/*.txt", "corpus/*.md", "corpus/**/*.txt")
    assert documents(found.train) == ["first \u00e9", "second\r\n"]
    assert documents(found.held_out) == ["third"]


def test_json_lines_give_a_document_a_row(workspace: Workspace, written: Written) -> None:
    written(
        "a.jsonl", lines({"body": "one"}, {"body": "", "n": 1}, {"body": "two\n\u2028x"}) + "\n" + lines({"body": "z!"})
    )
    found = dataset(workspace, "a.jsonl", column="body")
    assert documents(found.train) == ["one", "two\n\u2028x"]
    assert documents(found.held_out) == ["z!"]


@pytest.mark.parametrize("kind", [polars.String, polars.Categorical])
def test_parquet_gives_a_document_a_row(workspace: Workspace, kind: type[polars.DataType]) -> None:
    rows = [f"row {number} \u00e9" for number in range(5000)]
    frame = polars.DataFrame({"id": range(5000), "text": rows}).cast({"text": kind})
    frame.write_parquet(workspace.root / "rows.parquet", row_group_size=700)
    found = dataset(workspace, "rows.parquet", held_out_fraction=0.1)
    assert documents(found.train) + documents(found.held_out) == rows
    assert len(documents(found.held_out)) == 500


def test_the_last_documents_are_held_out(workspace: Workspace, written: Written) -> None:
    written("a.jsonl", lines(*({"text": f"number {number}"} for number in range(10))))
    assert documents(dataset(workspace, "a.jsonl").held_out) == ["number 9"]
    found = dataset(workspace, "a.jsonl", held_out_fraction=0.3)
    assert documents(found.train)[-1] == "number 6"
    assert documents(found.held_out) == ["number 7", "number 8", "number 9"]
    assert len(documents(dataset(workspace, "a.jsonl", held_out_fraction=0.99).train)) == 1


@pytest.mark.parametrize("piece", [7, 1 << 20])
def test_the_end_of_a_single_document_is_held_out(
    workspace: Workspace, written: Written, monkeypatch: pytest.MonkeyPatch, piece: int
) -> None:
    monkeypatch.setattr(readers, "PIECE", piece)
    content = "".join(f"line {number}\n" for number in range(100))
    written("a.txt", content)
    found = dataset(workspace, "a.txt", held_out_fraction=0.25)
    (train,), (held_out,) = documents(found.train), documents(found.held_out)
    assert train + held_out == content
    assert len(held_out) == round(len(content) * 0.25)


def test_held_out_files_are_not_trained_on_though_a_pattern_names_them(workspace: Workspace, written: Written) -> None:
    for name in ("a", "b", "validation"):
        written(f"corpus/{name}.txt", f"text of {name}")
    found = dataset(workspace, "corpus/*.txt", held_out=["corpus/validation.txt"])
    assert documents(found.train) == ["text of a", "text of b"]
    assert documents(found.held_out) == ["text of validation"]
    message = failure(Workspace(workspace.root / "corpus"), "*.txt", held_out=["*.txt"])
    assert "every file is held out" in message


def test_a_link_may_lead_out_of_the_project(workspace: Workspace, tmp_path_factory: pytest.TempPathFactory) -> None:
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    (elsewhere / "far.txt").write_text("far away text")
    (workspace.root / "corpus").symlink_to(elsewhere)
    assert "".join(documents(dataset(workspace, "corpus/*.txt", held_out_fraction=0.3).train)) == "far away "


def test_a_missing_file_is_named_with_the_nearest(workspace: Workspace, written: Written) -> None:
    written("corpus/poems.txt", "x")
    message = failure(workspace, "corpus/poem.txt")
    assert "data.source.paths: there is no file `corpus/poem.txt`" in message
    assert "did you mean `corpus/poems.txt`?" in message
    assert "`corpus/*` names the files in it" in failure(workspace, "corpus")
    assert "no file matches `corpus/*.jsonl`" in failure(workspace, "corpus/*.jsonl")
    assert "data.source.held_out: there is no file `gone.txt`" in failure(
        workspace, "corpus/poems.txt", held_out=["gone.txt"]
    )


def test_an_unknown_ending_is_named_with_the_known_ones(workspace: Workspace, written: Written) -> None:
    written("table.csv", "a,b")
    message = failure(workspace, "table.csv")
    assert "table.csv cannot be read, since it has the ending `.csv`" in message
    assert ".jsonl or .parquet" in message


def test_what_is_not_utf8_is_named_with_its_line(workspace: Workspace, written: Written) -> None:
    written("a.txt", b"good\nalso good\nbad \xe9 here\n")
    message = failure(workspace, "a.txt")
    assert "a.txt:3: byte 5 of the line (0xe9) is not valid UTF-8" in message
    assert "iconv" in message
    written("a.jsonl", lines({"text": "x"}).encode() + b'{"text": "\xff"}\n')
    assert "a.jsonl:2: byte 11" in failure(workspace, "a.jsonl")


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ('{"text": "cut', "is not JSON: "),
        ("[1, 2]", "list; expected an object with the text in `text`"),
        ("[" * 100_000, "not JSON"),
        ('{"text": 3}', "`text` is int; expected a string"),
        ('{"text": null}', "`text` is null; expected a string"),
        ('{"texts": "x"}', "no column `text`; it has texts\ndid you mean `texts`?"),
        ('{"a": "x", "b": 1}', "no column `text`; it has a, b\nname one of them in data.source.column"),
        ('{"text": "ab\\ud83d"}', "half of a surrogate pair (\\ud83d) at character 3"),
    ],
)
def test_a_bad_json_line_is_named(workspace: Workspace, written: Written, row: str, expected: str) -> None:
    written("rows.jsonl", lines({"text": "good"}) + "\n" + row + "\n" + lines({"text": "good"}))
    message = failure(workspace, "rows.jsonl")
    assert f"{workspace.root / 'rows.jsonl'}:3" in message
    assert expected in message


def test_a_parquet_file_without_the_column_or_with_another_type_is_named(workspace: Workspace) -> None:
    polars.DataFrame({"text": [1, 2], "body": ["a", "b"]}).write_parquet(workspace.root / "a.parquet")
    assert "a.parquet: `text` is Int64; expected String" in failure(workspace, "a.parquet")
    message = failure(workspace, "a.parquet", column="bodi")
    assert "a.parquet has no column `bodi`; it has text, body\ndid you mean `body`?" in message


def test_a_null_in_a_parquet_file_is_named_with_its_row(workspace: Workspace) -> None:
    rows: list[str | None] = [f"row {number}" for number in range(3000)]
    rows[2345] = None
    polars.DataFrame({"text": rows}).write_parquet(workspace.root / "a.parquet", row_group_size=500)
    assert "a.parquet, row 2346: `text` is null; expected a string" in failure(workspace, "a.parquet")


@pytest.mark.parametrize("kept", [0, 3, 10, 0.5, 0.99])
def test_a_truncated_parquet_file_is_named(workspace: Workspace, kept: float) -> None:
    path = workspace.root / "a.parquet"
    polars.DataFrame({"text": [f"row {number} of many" for number in range(20000)]}).write_parquet(path)
    content = path.read_bytes()
    path.write_bytes(content[: round(kept if kept >= 1 else kept * len(content))])
    message = failure(workspace, "a.parquet")
    assert f"{path} is not a complete Parquet file (after row 0)" in message
    assert "copy or download it again" in message


def test_a_parquet_file_with_a_damaged_page_is_named(workspace: Workspace) -> None:
    path = workspace.root / "a.parquet"
    polars.DataFrame({"text": [f"row {number} of many" for number in range(20000)]}).write_parquet(path)
    content = bytearray(path.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 2000] = b"\xff" * 2000
    path.write_bytes(content)
    assert f"{path} is not a complete Parquet file" in failure(workspace, "a.parquet")


@pytest.mark.parametrize("name", ["a.txt", "a.jsonl"])
def test_an_empty_corpus_is_refused(workspace: Workspace, written: Written, name: str) -> None:
    written(name, "")
    message = failure(workspace, name)
    assert "there is nothing in the training part of data.source" in message
    assert name in message


def test_an_empty_held_out_part_is_refused(workspace: Workspace, written: Written) -> None:
    written("a.txt", "some text")
    written("b.txt", "")
    assert "nothing in the held-out part" in failure(workspace, "a.txt", held_out=["b.txt"])


def test_a_file_that_changes_while_it_is_read_is_refused(workspace: Workspace, written: Written) -> None:
    path = written("a.txt", "some text")
    source = {"kind": "files", "paths": ["a.txt"]}

    def report(line: str) -> None:
        if "writing" in line:
            path.write_text("same text")

    with pytest.raises(DataError, match="changed while they were read"):
        prepare(text(source=source, tokenizer="bytes", context=2), workspace, report)
    assert not list(workspace.data.iterdir())


def test_all_files_of_another_encoding_are_counted_and_ten_are_named(workspace: Workspace, written: Written) -> None:
    for number in range(30):
        written(f"mail/{number:02}.txt", b"caf\xe9" if number % 2 else "caf\u00e9".encode())
    written("h.txt", b"held out: \xe9")
    message = failure(workspace, "mail/*.txt", held_out=["h.txt"])
    told = message.splitlines()
    assert told[0] == "16 faults in 31 files, the first 10:"
    assert [line.partition(":")[0][-6:] for line in told[1:11]] == [f"{number:02}.txt" for number in range(1, 21, 2)]
    assert message.count("data.source.encoding") == 1
    assert "21.txt" not in message


@pytest.mark.parametrize("encoding", ["latin-1", "cp1252", "utf-16", "shift_jis"])
def test_text_in_another_encoding_is_read(workspace: Workspace, written: Written, encoding: str) -> None:
    word = "\u65e5\u672c" if encoding in ("shift_jis", "utf-16") else "caf\u00e9"
    written("a.txt", f"{word} one\r\ntwo\n".encode(encoding))
    written("b.jsonl", json.dumps({"text": word}, ensure_ascii=False).encode(encoding))
    found = dataset(workspace, "a.txt", held_out=["b.jsonl"], encoding=encoding)
    assert documents(found.train) == [f"{word} one\r\ntwo\n"]
    assert documents(found.held_out) == [word]


@pytest.mark.parametrize("encoding", ["utf-16", "ascii"])
def test_what_has_not_the_encoding_that_is_named_is_refused(
    workspace: Workspace, written: Written, encoding: str
) -> None:
    written("a.txt", "caf\u00e9!".encode())
    message = failure(workspace, "a.txt", encoding=encoding)
    assert f"is not valid {encoding.upper()}" in message


def test_an_encoding_that_is_none_is_refused() -> None:
    with pytest.raises(ValidationError, match="`latin_one` is not an encoding"):
        text(source={"kind": "files", "paths": ["a.txt"], "encoding": "latin_one"})


def test_all_bad_rows_are_counted(workspace: Workspace, written: Written) -> None:
    written("a.jsonl", lines({"text": "good"}, {"text": None}, {"body": "x"}) + "{bad\n" + lines({"text": "good"}))
    message = failure(workspace, "a.jsonl")
    assert message.startswith("3 faults in 1 file:\n")
    for place in ("a.jsonl:2: `text` is null", "a.jsonl:3 has no column `text`", "a.jsonl:4 is not JSON"):
        assert place in message


def compress(name: str, content: bytes) -> bytes:
    if name.endswith(".gz"):
        return gzip.compress(content)
    zstandard = pytest.importorskip("zstandard")
    frame = zstandard.ZstdCompressor().compress
    return bytes(frame(content[: len(content) // 2]) + frame(content[len(content) // 2 :]))  # two frames


@pytest.mark.parametrize("ending", [".jsonl.gz", ".jsonl.zst", ".zst"])
def test_compressed_json_lines_are_read(workspace: Workspace, written: Written, ending: str) -> None:
    rows = [f"number {number}, {'very ' * (number % 50)}long \u00e9" for number in range(4000)]
    content = lines(*({"text": row} for row in rows)).encode()
    written(f"a{ending}", compress(ending, content))
    found = dataset(workspace, f"a{ending}", held_out_fraction=0.5)
    assert documents(found.train) + documents(found.held_out) == rows


def test_compressed_text_is_one_document_in_any_encoding(workspace: Workspace, written: Written) -> None:
    written("a.txt.gz", gzip.compress("caf\u00e9 one\ntwo".encode("utf-16")))
    written("h.txt", "caf\u00e9".encode("utf-16"))
    found = dataset(workspace, "a.txt.gz", held_out=["h.txt"], encoding="utf-16")
    assert documents(found.train) == ["caf\u00e9 one\ntwo"]


@pytest.mark.parametrize(
    ("ending", "damage"),
    [(".jsonl.gz", "cut"), (".jsonl.gz", "replaced"), (".zst", "cut"), (".zst", "replaced"), (".zst", "changed")],
)
def test_a_damaged_compressed_file_is_named_with_the_byte(
    workspace: Workspace, written: Written, ending: str, damage: str
) -> None:
    whole = compress(ending, lines(*({"text": f"number {number}"} for number in range(9000))).encode())
    middle = len(whole) // 2
    content = {
        "cut": whole[:-9],
        "replaced": b"no magic number at all",
        "changed": whole[:middle] + bytes(byte ^ 255 for byte in whole[middle : middle + 40]) + whole[middle + 40 :],
    }[damage]
    path = written(f"a{ending}", content)
    message = failure(workspace, f"a{ending}")
    kind = "gzip" if ending.endswith("gz") else "Zstandard"
    assert f"{path} is not a complete {kind} file (at byte " in message, message
    assert int(message.partition("at byte ")[2].partition(")")[0]) <= len(content)


def test_a_compressed_file_without_its_package_is_named(workspace: Workspace, written: Written, monkeypatch) -> None:
    written("a.jsonl.zst", b"")
    monkeypatch.setitem(sys.modules, "zstandard", None)
    with pytest.raises(EnvironmentProblem, match=r"a \.zst file needs .*\nrun: pip install 'gnflow\[zstd\]'"):
        dataset(workspace, "a.jsonl.zst")
