"""Images and captions in Parquet files, read by polars: files of the project, or a dataset of Hugging Face's layout."""

from collections.abc import Callable, Iterator, Sequence
from io import BytesIO
from pathlib import Path
from typing import NamedTuple

import numpy as np
import polars

from gnflow.data.multimodal.samples import Captioned, Gallery, Images, Pictures, Pixels
from gnflow.data.sources.columns import expression
from gnflow.data.sources.corpus import Json
from gnflow.data.sources.paths import matching
from gnflow.data.sources.readers import text_of
from gnflow.errors import DataError, EnvironmentProblem
from gnflow.spec.multimodal import ImageFiles, ImageHub, ImageTable

ROWS = 256
HUB = "hf://datasets"


class Part(NamedTuple):
    """Consecutive rows of one file."""

    file: Path | str
    first: int
    rows: int


def open_files(source: ImageFiles, root: Path, variant: int) -> Pictures:
    """The factory of files in the project."""
    return Pictures(lambda sha256: files_identity(source, root, sha256), lambda: files(source, root))


def open_hub(source: ImageHub, root: Path, variant: int) -> Pictures:
    """The factory of a dataset of Hugging Face's layout."""
    return Pictures(lambda sha256: hub_identity(source, root, sha256), lambda: hub(source, root))


def files_identity(source: ImageFiles, root: Path, sha256: Callable[[Path], str]) -> Json:
    """Path and content of every file."""
    return [{"path": path.relative_to(root).as_posix(), "sha256": sha256(path)} for path in _named(source, root)]


def hub_identity(source: ImageHub, root: Path, sha256: Callable[[Path], str]) -> Json:
    """Content of a local directory. A name on the hub stands for itself: what was prepared once is what is used."""
    directory = root / source.path
    if not directory.is_dir():
        return None
    return {path.relative_to(directory).as_posix(): sha256(path) for path in sorted(directory.rglob("*.parquet"))}


def files(source: ImageFiles, root: Path) -> Gallery:
    """The rows of the files, in order; what is held out is never trained on. Raises DataError."""
    held_out = matching(source.held_out, root, "data.source.held_out")
    train = [_whole(path) for path in _named(source, root) if path not in held_out]
    if held_out:
        return _gallery(source, train, [_whole(path) for path in held_out])
    rows = sum(part.rows for part in train)
    kept = rows - max(1, round(rows * source.held_out_fraction))
    return _gallery(source, _between(train, 0, kept), _between(train, kept, rows))


def hub(source: ImageHub, root: Path) -> Gallery:
    """The rows of both splits. Raises DataError."""
    return _gallery(source, _split(source, source.split, root), _split(source, source.held_out, root))


def _named(source: ImageFiles, root: Path) -> list[Path]:
    named = [*source.paths, *source.held_out]
    return matching(named, root, "data.source.paths")


def _split(source: ImageHub, split: str, root: Path) -> list[Part]:
    directory = root / source.path
    if not directory.is_dir():
        return [_whole(f"{HUB}/{source.path}/**/{split}-*.parquet")]
    named = [
        path
        for path in sorted(directory.rglob("*.parquet"))
        if split in (path.stem, path.parent.name) or path.stem.startswith(f"{split}-")
    ]
    if not named:
        raise DataError(
            f"data.source: no Parquet file of the split `{split}` under {directory}\n"
            f"expected {split}.parquet, {split}-*.parquet or {split}/*.parquet"
        )
    return [_whole(path) for path in named]


def _whole(file: Path | str) -> Part:
    try:
        return Part(file, 0, polars.scan_parquet(file).select(polars.len()).collect().item())
    except (polars.exceptions.PolarsError, OSError) as error:
        raise _unreadable(file, error) from None


def _between(parts: Sequence[Part], first: int, last: int) -> list[Part]:
    """Rows `first` to `last` - 1 of all parts together."""
    chosen, start = [], 0
    for file, begin, count in parts:
        low, high = max(first - start, 0), min(last - start, count)
        if low < high:
            chosen.append(Part(file, begin + low, high - low))
        start += count
    return chosen


def _gallery(source: ImageTable, train: list[Part], held_out: list[Part]) -> Gallery:
    return Gallery(_images(source, train, "training"), _images(source, held_out, "held-out"))


def _images(source: ImageTable, parts: list[Part], split: str) -> Images:
    def read() -> Iterator[Captioned]:
        for place, text, content in _rows(source, parts, with_images=True):
            yield Captioned(_decoded(content, source, place), text)

    def captions() -> Iterator[str]:
        return (text for _, text, _ in _rows(source, parts, with_images=False))

    samples = sum(part.rows for part in parts)
    if not samples:
        raise DataError(f"there is no row in the {split} part of data.source\ngive more files, or hold out fewer rows")
    return Images(samples, read, captions)


def _rows(source: ImageTable, parts: list[Part], with_images: bool) -> Iterator[tuple[str, str, object]]:
    """File and row in words, caption, and bytes of the image."""
    for part in parts:
        number = part.first
        try:
            frame = polars.scan_parquet(part.file)
            columns = [_text(frame, source, part.file)] + ([_image(frame, source, part.file)] if with_images else [])
            for batch in (
                frame.slice(part.first, part.rows)
                .select(columns)
                .collect_batches(chunk_size=ROWS, maintain_order=True, lazy=True)
            ):
                for text, *content in batch.iter_rows():
                    number += 1
                    place = f"{part.file}, row {number}"
                    yield place, text_of(text, place, source.text), content[0] if content else None
        except (polars.exceptions.PolarsError, OSError) as error:
            raise _unreadable(part.file, error, number) from None


def _text(frame: polars.LazyFrame, source: ImageTable, file: Path | str) -> polars.Expr:
    column, _ = expression(frame.collect_schema(), source.text, str(file))
    return column.alias("text")


def _image(frame: polars.LazyFrame, source: ImageTable, file: Path | str) -> polars.Expr:
    column, kind = expression(frame.collect_schema(), source.image, str(file))
    if (
        isinstance(kind, polars.Struct)
        and {field.name: field.dtype for field in kind.fields}.get("bytes") == polars.Binary
    ):
        return column.struct.field("bytes").alias("image")
    if kind != polars.Binary:
        raise DataError(
            f"{file}: `{source.image}` is {kind}; expected Binary, or a Struct with `bytes`\nname another column"
        )
    return column.alias("image")


def _decoded(content: object, source: ImageTable, place: str) -> Pixels:
    try:
        from PIL import Image, ImageOps
    except ModuleNotFoundError:
        raise EnvironmentProblem(
            "reading images needs the package pillow, which is not installed\nrun: pip install 'gnflow[images]'"
        ) from None
    height, width, colours = source.shape
    if not isinstance(content, bytes):
        raise DataError(f"{place}: `{source.image}` is null; expected the bytes of a PNG or JPEG\nremove the row")
    try:
        with Image.open(BytesIO(content), formats=("PNG", "JPEG")) as file:
            plain = file.convert("RGB" if colours == 3 else "L")
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise DataError(
            f"{place}: `{source.image}` is not a whole PNG or JPEG: {error}\nremove or repair the row"
        ) from None
    fitted = ImageOps.fit(plain, (width, height), Image.Resampling.BICUBIC)
    return np.asarray(fitted, dtype=np.uint8).reshape(height, width, colours)


def _unreadable(file: Path | str, error: Exception, row: int = 0) -> DataError:
    if isinstance(file, str):
        return DataError(f"{file} cannot be read: {error}\nis the name right, is there such a split, and a connection?")
    return DataError(f"{file}: not a whole Parquet file (after row {row}): {error}\ncopy or download it again")
