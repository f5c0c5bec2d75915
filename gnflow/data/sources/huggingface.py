"""Datasets that `datasets.load_dataset` can open: a local directory, or a name on the hub."""

import hashlib
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from gnflow.data.sources.columns import field
from gnflow.data.sources.corpus import Corpus, Json, Piece, split, whole
from gnflow.data.sources.faults import sound
from gnflow.data.sources.installed import require
from gnflow.data.sources.named import Named, digests
from gnflow.data.sources.opened import Opened
from gnflow.data.sources.patterns import matches
from gnflow.data.sources.readers import text_of
from gnflow.errors import DataError
from gnflow.spec.data import HuggingFace
from gnflow.spec.splits import is_sliced

NO_SUCH_SPLIT = re.compile(r"(Bad|Unknown) split")


def open_dataset(source: HuggingFace, root: Path) -> Opened:
    """Open a source of Hugging Face's datasets; its spec names this function as its factory."""
    return Opened(lambda sha256: identity(source, root, sha256), lambda: corpus(source, root))


def identity(source: HuggingFace, root: Path, sha256: Callable[[Path], str]) -> Json:
    """Content of a local directory. A name on the hub stands for itself: what was prepared once is what is used."""
    directory = root / source.path
    if not directory.is_dir():
        return None
    return {path.relative_to(directory).as_posix(): sha256(path) for path in matches("**/*", directory)}


def corpus(source: HuggingFace, root: Path) -> Corpus:
    """The rows of both splits. Raises DataError, and EnvironmentProblem without the package."""
    local = (root / source.path).is_dir()

    def documents(name: str) -> Iterator[Piece]:
        # One bad row of a directory has all others looked for; the hub may be larger than what is worth reading for it.
        return sound(_documents(source, name, root), everything if local else None)

    def everything() -> Iterator[Piece | DataError]:
        names = [source.split] if source.held_out_fraction is not None else [source.split, source.held_out]
        return (piece for name in names for piece in _documents(source, name, root))

    if source.held_out_fraction is not None:
        return split(lambda: documents(source.split), source.held_out_fraction)
    if local:
        _require_other_files(source, root)
    if is_sliced(source.split + source.held_out):
        _require_other_rows(source, root)
    return Corpus(lambda: documents(source.split), lambda: documents(source.held_out))


def _documents(source: HuggingFace, split: str, root: Path) -> Iterator[Piece | DataError]:
    return whole(_texts(source, split, root))


def _texts(source: HuggingFace, split: str, root: Path) -> Iterator[str | DataError]:
    datasets = _package()
    # Slices such as train[:1%] exist for whole data sets only; streaming spares a copy or a whole download.
    streaming = ((root / source.path).is_dir() or source.documents is not None) and not is_sliced(split)
    place = f"{source.path}, split {split}"
    row = 0
    try:
        rows = datasets.load_dataset(_path(source, root), source.name, split=split, streaming=streaming)
        for row, fields in enumerate(rows, 1):
            if source.documents is not None and row > source.documents:
                return
            here = f"{place}, row {row}"
            # A column that is not in one row is in none: that is one fault.
            yield text_of(field(fields, source.column, here), here, source.column)
    except DataError:
        raise
    except Exception as error:
        # The library raises whatever its file systems, decoders and builders raise.
        yield _failed(source, split, place, row, error)


def _failed(source: HuggingFace, split: str, place: str, row: int, error: Exception) -> DataError:
    advice = "check data.source, and that the directory or the hub can be read"
    if split == source.held_out and NO_SUCH_SPLIT.search(str(error)):
        advice = f"to hold out the last part of `{source.split}`, write `held_out_fraction: 0.05` in data.source"
    return DataError(f"{place}: the package datasets failed after row {row}: {type(error).__name__}: {error}\n{advice}")


def _require_other_files(source: HuggingFace, root: Path) -> None:
    """Raises DataError when a file of the split to train on has the content of a held-out one."""
    datasets = _package()
    try:
        found = datasets.load_dataset_builder(_path(source, root), source.name).config.data_files or {}
    except Exception:  # reading the rows meets it again, and says what it is
        return
    train, held_out = ([Path(file) for file in found.get(name, ())] for name in (source.split, source.held_out))
    digests(Named(train, held_out), (root / source.path).resolve(), _sha256)


def _require_other_rows(source: HuggingFace, root: Path) -> None:
    """Raises DataError when slices share rows, which their number may decide."""
    datasets = _package()
    try:
        lengths = {
            name: info.num_examples
            for part in (source.split, source.held_out)
            for name, info in datasets.load_dataset(_path(source, root), source.name, split=part).info.splits.items()
        }
        train, held_out = (
            [
                (part.splitname, part.from_ or 0, lengths[part.splitname] if part.to is None else part.to)
                for part in parts
            ]
            for parts in (
                datasets.ReadInstruction.from_spec(name).to_absolute(lengths)
                for name in (source.split, source.held_out)
            )
        )
    except Exception:  # reading the rows meets it again, and says what it is
        return
    for name, first, last in train:
        for other, begin, end in held_out:
            if name == other and max(first, begin) < min(last, end):
                raise DataError(
                    f"{source.path}: `{source.split}` to train on and `{source.held_out}` to hold out share the rows "
                    f"{max(first, begin)} to {min(last, end) - 1} of `{name}`\n"
                    "name slices that do not meet, or write `held_out_fraction: 0.05` in place of `held_out`"
                )


def _path(source: HuggingFace, root: Path) -> str:
    directory = root / source.path
    return str(directory.resolve()) if directory.is_dir() else source.path


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _package() -> Any:
    require("datasets", "a huggingface source", "hf")
    import datasets  # type: ignore[import-untyped]  # it ships no types

    return datasets
