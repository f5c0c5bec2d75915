"""Images and captions in Parquet files, read by polars: files of the project, or a dataset of Hugging Face's layout."""

from collections.abc import Callable, Iterator, Sequence
from io import BytesIO
from pathlib import Path
from typing import NamedTuple

import numpy as np
import polars

from gnflow.data.multimodal.samples import Captioned, Gallery, Images, Pictures, Pixels
from gnflow.data.sources.columns import find_column
from gnflow.data.sources.corpus import Json, count_kept
from gnflow.data.sources.faults import require_sound
from gnflow.data.sources.installed import require
from gnflow.data.sources.named import Named, compute_digests, find_files
from gnflow.data.sources.paths import find_matching
from gnflow.data.sources.patterns import find_matches
from gnflow.data.sources.readers import check_text
from gnflow.errors import DataError
from gnflow.spec.multimodal import ImageFiles, ImageHub, ImageTable

ROWS = 256
HUB = "hf://datasets"
ANYWHERE = "**/*.parquet"


class Part(NamedTuple):
    """Consecutive rows of one file."""

    file: Path | str
    first: int
    rows: int


def open_files(source: ImageFiles, root: Path, variant: int) -> Pictures:
    """Open images in files of the project; their spec names this function as its factory."""
    return Pictures(lambda sha256: identify_files(source, root, sha256), lambda: open_file_gallery(source, root))


def open_hub(source: ImageHub, root: Path, variant: int) -> Pictures:
    """Open images in a dataset of Hugging Face's layout; its spec names this function as its factory."""
    return Pictures(lambda sha256: identify_hub(source, root, sha256), lambda: open_hub_gallery(source, root))


def identify_files(source: ImageFiles, root: Path, sha256: Callable[[Path], str]) -> Json:
    """Return path and digest of every file."""
    digest = compute_digests(find_files(source.paths, source.held_out, root), root, sha256)
    every = find_matching([*source.paths, *source.held_out], root, "data.source.paths")
    return [{"path": path.relative_to(root).as_posix(), "sha256": digest[path]} for path in every]


def identify_hub(source: ImageHub, root: Path, sha256: Callable[[Path], str]) -> Json:
    """Return the digests of a local directory; None for a name on the hub, since its data is prepared only once."""
    directory = root / source.path
    if not directory.is_dir():
        return None
    if source.held_out_fraction is None:
        compute_digests(Named(*(_find_local(source, split, directory) for split in _list_splits(source))), root, sha256)
    return {path.relative_to(directory).as_posix(): sha256(path) for path in find_matches(ANYWHERE, directory)}


def open_file_gallery(source: ImageFiles, root: Path) -> Gallery:
    """Open the rows of the files, in order. Held-out rows are never trained on. Raises DataError."""
    train, held_out = (
        [_measure_file(path) for path in part] for part in find_files(source.paths, source.held_out, root)
    )
    return _make_gallery(source, train, held_out) if held_out else _hold_out(source, train, source.held_out_fraction)


def open_hub_gallery(source: ImageHub, root: Path) -> Gallery:
    """Open the rows of both splits. Raises DataError."""
    train, *held_out = (
        [_measure_file(file) for file in _find_split(source, split, root)] for split in _list_splits(source)
    )
    if source.held_out_fraction is not None:
        return _hold_out(source, train, source.held_out_fraction)
    return _make_gallery(source, train, *held_out)


def _list_splits(source: ImageHub) -> list[str]:
    return [source.split] if source.held_out_fraction is not None else [source.split, source.held_out]


def _find_split(source: ImageHub, split: str, root: Path) -> Sequence[Path | str]:
    directory = root / source.path
    return (
        _find_local(source, split, directory) if directory.is_dir() else [f"{HUB}/{source.path}/**/{split}-*.parquet"]
    )


def _find_local(source: ImageHub, split: str, directory: Path) -> list[Path]:
    found = [
        path
        for path in find_matches(ANYWHERE, directory)
        if split in (path.stem, path.parent.name) or path.stem.startswith(f"{split}-")
    ]
    if not found:
        part = f"; to hold out the last part of `{source.split}`, write `held_out_fraction: 0.05` in data.source"
        raise DataError(
            f"data.source: there is no Parquet file of the split `{split}` under {directory}\n"
            f"expected {split}.parquet, {split}-*.parquet or {split}/*.parquet{part * (split == source.held_out)}"
        )
    return found


def _hold_out(source: ImageTable, parts: list[Part], fraction: float) -> Gallery:
    """Hold out the last rows."""
    rows = sum(part.rows for part in parts)
    first = count_kept(rows, fraction)
    return _make_gallery(source, _select_rows(parts, 0, first), _select_rows(parts, first, rows))


def _measure_file(file: Path | str) -> Part:
    try:
        return Part(file, 0, polars.scan_parquet(file).select(polars.len()).collect().item())
    except (polars.exceptions.PolarsError, OSError) as error:
        raise _explain_unreadable(file, error) from None


def _select_rows(parts: Sequence[Part], first: int, last: int) -> list[Part]:
    """Select rows `first` to `last` - 1 of all parts together."""
    chosen, start = [], 0
    for file, begin, count in parts:
        low, high = max(first - start, 0), min(last - start, count)
        if low < high:
            chosen.append(Part(file, begin + low, high - low))
        start += count
    return chosen


def _make_gallery(source: ImageTable, train: list[Part], held_out: list[Part]) -> Gallery:
    return Gallery(_make_images(source, train, "training"), _make_images(source, held_out, "held-out"))


def _make_images(source: ImageTable, parts: list[Part], split: str) -> Images:
    def read() -> Iterator[Captioned]:
        return require_sound(_read_captioned(source, parts), lambda: _read_captioned(source, parts))

    def read_captions() -> Iterator[str]:
        return require_sound(_read_captions(source, parts), lambda: _read_captions(source, parts))

    samples = sum(part.rows for part in parts)
    if not samples:
        raise DataError(f"there is no row in the {split} part of data.source\ngive more files, or hold out fewer rows")
    return Images(samples, read, read_captions)


def _read_captioned(source: ImageTable, parts: list[Part]) -> Iterator[Captioned | DataError]:
    require("PIL", "reading images", "images", "pillow")
    for place, text, content in _read_rows(source, parts, with_images=True):
        image = text if isinstance(text, DataError) else _decode(content, source, place)
        yield image if isinstance(image, DataError) else Captioned(image, str(text))


def _read_captions(source: ImageTable, parts: list[Part]) -> Iterator[str | DataError]:
    return (text for _, text, _ in _read_rows(source, parts, with_images=False))


def _read_rows(
    source: ImageTable, parts: list[Part], with_images: bool
) -> Iterator[tuple[str, str | DataError, object]]:
    """Read for each row its place in words, its caption, and the bytes of its image."""
    for part in parts:
        number = part.first
        try:
            frame = polars.scan_parquet(part.file)
            columns = [_select_text(frame, source, part.file)] + (
                [_select_image(frame, source, part.file)] if with_images else []
            )
            for batch in (
                frame.slice(part.first, part.rows)
                .select(columns)
                .collect_batches(chunk_size=ROWS, maintain_order=True, lazy=True)
            ):
                for text, *content in batch.iter_rows():
                    number += 1
                    place = f"{part.file}, row {number}"
                    yield place, check_text(text, place, source.text), content[0] if content else None
        except (polars.exceptions.PolarsError, OSError) as error:
            yield str(part.file), _explain_unreadable(part.file, error, number), None
        except DataError as error:
            yield str(part.file), error, None


def _select_text(frame: polars.LazyFrame, source: ImageTable, file: Path | str) -> polars.Expr:
    column, _ = find_column(frame.collect_schema(), source.text, str(file))
    return column.alias("text")


def _select_image(frame: polars.LazyFrame, source: ImageTable, file: Path | str) -> polars.Expr:
    column, kind = find_column(frame.collect_schema(), source.image, str(file))
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


def _decode(content: object, source: ImageTable, place: str) -> Pixels | DataError:
    from PIL import Image, ImageOps

    height, width, colours = source.shape
    if not isinstance(content, bytes):
        return DataError(f"{place}: `{source.image}` is null; expected the bytes of a PNG or JPEG\nremove the row")
    try:
        with Image.open(BytesIO(content), formats=("PNG", "JPEG")) as file:
            plain = file.convert("RGB" if colours == 3 else "L")
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        return DataError(f"{place}: `{source.image}` is not a complete PNG or JPEG: {error}\nremove or repair the row")
    fitted = ImageOps.fit(plain, (width, height), Image.Resampling.BICUBIC)
    return np.asarray(fitted, dtype=np.uint8).reshape(height, width, colours)


def _explain_unreadable(file: Path | str, error: Exception, row: int = 0) -> DataError:
    if isinstance(file, str):
        return DataError(f"{file} cannot be read: {error}\ncheck the name, the split and the connection")
    return DataError(f"{file} is not a complete Parquet file (after row {row}): {error}\ncopy or download it again")
