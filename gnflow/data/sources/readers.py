"""Documents of one text, JSONL or Parquet file, in bounded memory."""

import json
from collections.abc import Iterator
from pathlib import Path

import polars

from gnflow.data.sources.columns import expression, field
from gnflow.data.sources.corpus import Piece, whole
from gnflow.data.sources.paths import reading
from gnflow.errors import DataError

PIECE = 1 << 20
PARQUET_ROWS = 1024


def read(path: Path, column: str) -> Iterator[Piece]:
    """The documents of a file. Raises DataError with the line or row."""
    match path.suffix.lower():
        case ".txt" | ".md":
            return _text(path)
        case ".jsonl":
            return whole(_json_lines(path, column))
        case ".parquet":
            return whole(_parquet(path, column))
        case other:
            raise DataError(
                f"{path}: cannot read `{other or 'a file without an ending'}`\n"
                "expected .txt or .md (one document each), .jsonl or .parquet (one document a row)"
            )


def text_of(value: object, place: str, column: str) -> str:
    """The text in a field. Raises DataError unless it is a string of valid Unicode."""
    if not isinstance(value, str):
        kind = "null" if value is None else type(value).__name__
        raise DataError(f"{place}: `{column}` is {kind}; expected a string\nremove the row, or name another column")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise DataError(
            f"{place}: `{column}` has half of a surrogate pair (\\u{ord(value[error.start]):04x}) at character "
            f"{error.start + 1}; expected valid Unicode\nremove or repair it"
        ) from None
    return value


def _text(path: Path) -> Iterator[Piece]:
    buffer: list[str] = []
    size = 0
    for line in _lines(path):
        buffer.append(line)
        size += len(line)
        if size >= PIECE:
            text = "".join(buffer)
            cut = _boundary(text)
            if cut:
                yield Piece(text[:cut], False)
            buffer, size = [text[cut:]], len(text) - cut
    if size:
        yield Piece("".join(buffer), True)


def _boundary(text: str) -> int:
    """The last place where a word ends and white space begins, else 0.

    No pre-token of byte-level BPE reaches across such a place, so cutting there leaves the tokens as they were.
    """
    place = len(text)
    while (place := max(text.rfind(" ", 0, place), text.rfind("\n", 0, place))) > 0:
        if not text[place - 1].isspace():
            return place
    return 0


def _lines(path: Path) -> Iterator[str]:
    with reading(path), path.open("rb") as file:
        for number, line in enumerate(file, 1):
            try:
                text = line.decode()
            except UnicodeDecodeError as error:
                raise DataError(
                    f"{path}:{number}: byte {error.start + 1} of the line (0x{line[error.start]:02x}) is not valid "
                    f"UTF-8; expected UTF-8 text\nconvert the file, for example: iconv -f latin1 -t utf-8"
                ) from None
            yield text.removeprefix("\ufeff") if number == 1 else text


def _json_lines(path: Path, column: str) -> Iterator[str]:
    for number, line in enumerate(_lines(path), 1):
        if not line.strip():
            continue
        place = f"{path}:{number}"
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise DataError(
                f"{place}: not JSON: {error}\nexpected one object a line, with the text in `{column}`"
            ) from None
        if not isinstance(row, dict):
            raise DataError(f"{place}: {type(row).__name__}; expected an object with the text in `{column}`")
        yield text_of(field(row, column, place), place, column)


def _parquet(path: Path, column: str) -> Iterator[str]:
    row = 0
    try:
        frame = polars.scan_parquet(path, glob=False)
        texts, kind = expression(frame.collect_schema(), column, str(path))
        if kind not in (polars.String, polars.Categorical, polars.Enum):
            raise DataError(f"{path}: `{column}` is {kind}; expected String\nname another column")
        chosen = frame.select(texts.cast(polars.String).alias("text"))
        for batch in chosen.collect_batches(chunk_size=PARQUET_ROWS, maintain_order=True, lazy=True):
            for text in batch["text"]:
                row += 1
                yield text_of(text, f"{path}, row {row}", column)
    except (polars.exceptions.PolarsError, OSError) as error:
        raise DataError(
            f"{path}: not a whole Parquet file (after row {row}): {error}\ncopy or download it again"
        ) from None
