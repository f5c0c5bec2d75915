"""Read the documents of one text, JSONL or Parquet file, in bounded memory. Text and JSONL may be compressed.

A document that cannot be read is replaced by a DataError, so that all faults can be reported at once.
"""

import io
import json
from collections.abc import Iterator
from pathlib import Path

import polars

from gnflow.data.sources.columns import find_column, find_field
from gnflow.data.sources.compressed import find_ending, open_bytes
from gnflow.data.sources.corpus import Piece, wrap_texts
from gnflow.data.sources.paths import guard_read
from gnflow.errors import DataError

PIECE = 1 << 20
PARQUET_ROWS = 1024


def read(path: Path, column: str, encoding: str = "utf-8") -> Iterator[Piece | DataError]:
    """Read the documents of a file, with a DataError that names the line or row in place of each unreadable one."""
    match find_ending(path):
        case ".txt" | ".md":
            yield from _read_text(path, encoding)
        case ".jsonl":
            yield from wrap_texts(_read_json_lines(path, column, encoding))
        case ".parquet" if path.suffix.lower() == ".parquet":  # it compresses its own pages
            yield from wrap_texts(_read_parquet(path, column))
        case other:
            yield DataError(
                f"{path} cannot be read, since it has {f'the ending `{other}`' if other else 'no ending'}\n"
                "expected .txt or .md (one document each), .jsonl or .parquet (one document a row); "
                "text and .jsonl may end in .gz or .zst as well"
            )


def check_text(value: object, place: str, column: str) -> str | DataError:
    """Return the text in a field, or an error if it is no string of valid Unicode."""
    if not isinstance(value, str):
        kind = "null" if value is None else type(value).__name__
        return DataError(f"{place}: `{column}` is {kind}; expected a string\nremove the row, or name another column")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        return DataError(
            f"{place}: `{column}` has half of a surrogate pair (\\u{ord(value[error.start]):04x}) at character "
            f"{error.start + 1}; expected valid Unicode\nremove or repair it"
        )
    return value


def _read_text(path: Path, encoding: str) -> Iterator[Piece | DataError]:
    buffer: list[str] = []
    size = 0
    for line in _read_lines(path, encoding):
        if isinstance(line, DataError):
            yield line
            return
        buffer.append(line)
        size += len(line)
        if size >= PIECE:
            text = "".join(buffer)
            cut = _find_boundary(text)
            if cut:
                yield Piece(text[:cut], False)
            buffer, size = [text[cut:]], len(text) - cut
    if size:
        yield Piece("".join(buffer), True)


def _find_boundary(text: str) -> int:
    """Find the last place where a word ends and white space begins, or else 0.

    No pre-token of byte-level BPE reaches across such a place, so cutting there leaves the tokens as they were.
    """
    place = len(text)
    while (place := max(text.rfind(" ", 0, place), text.rfind("\n", 0, place))) > 0:
        if not text[place - 1].isspace():
            return place
    return 0


def _read_lines(path: Path, encoding: str) -> Iterator[str | DataError]:
    try:
        with guard_read(path):
            for number, line in enumerate(_decode_lines(path, encoding), 1):
                yield line.removeprefix("\ufeff") if number == 1 and isinstance(line, str) else line
    except DataError as error:
        yield error


def _decode_lines(path: Path, encoding: str) -> Iterator[str | DataError]:
    if not _has_ascii_line_feed(encoding):
        try:
            with open_bytes(path) as file, io.TextIOWrapper(file, encoding=encoding, newline="\n") as text:
                yield from text
        except UnicodeError as error:
            yield _explain_undecodable(str(path), str(error), encoding)
        return
    with open_bytes(path) as file:
        for number, line in enumerate(file, 1):
            try:
                yield line.decode(encoding)
            except UnicodeDecodeError as error:
                place = f"byte {error.start + 1} of the line (0x{line[error.start]:02x})"
                yield _explain_undecodable(f"{path}:{number}", place, encoding)


def _has_ascii_line_feed(encoding: str) -> bool:
    """Return whether each line can be decoded alone, because a line feed is the byte that it is in ASCII."""
    return "\n".encode(encoding) == b"\n"


def _explain_undecodable(place: str, what: str, encoding: str) -> DataError:
    name = encoding.upper()
    return DataError(
        f"{place}: {what} is not valid {name}; expected {name} text\n"
        "if all files have another encoding, name it in data.source.encoding (for example latin-1); "
        "otherwise convert the files that have it, for example: iconv -f latin1 -t utf-8"
    )


def _read_json_lines(path: Path, column: str, encoding: str) -> Iterator[str | DataError]:
    for number, line in enumerate(_read_lines(path, encoding), 1):
        if isinstance(line, DataError):
            yield line
        elif line.strip():
            yield _read_json_line(line, column, f"{path}:{number}")


def _read_json_line(line: str, column: str, place: str) -> str | DataError:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        return DataError(f"{place} is not JSON: {error}\nexpected one object a line, with the text in `{column}`")
    if not isinstance(row, dict):
        return DataError(f"{place} is a {type(row).__name__}; expected an object with the text in `{column}`")
    try:
        return check_text(find_field(row, column, place), place, column)
    except DataError as error:
        return error


def _read_parquet(path: Path, column: str) -> Iterator[str | DataError]:
    row = 0
    try:
        frame = polars.scan_parquet(path, glob=False)
        texts, kind = find_column(frame.collect_schema(), column, str(path))
        if kind not in (polars.String, polars.Categorical, polars.Enum):
            yield DataError(f"{path}: `{column}` is {kind}; expected String\nname another column")
            return
        chosen = frame.select(texts.cast(polars.String).alias("text"))
        for batch in chosen.collect_batches(chunk_size=PARQUET_ROWS, maintain_order=True, lazy=True):
            for text in batch["text"]:
                row += 1
                yield check_text(text, f"{path}, row {row}", column)
    except (polars.exceptions.PolarsError, OSError) as error:
        yield DataError(f"{path} is not a complete Parquet file (after row {row}): {error}\ncopy or download it again")
    except DataError as error:
        yield error
