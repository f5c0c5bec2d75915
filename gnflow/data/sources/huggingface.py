"""Datasets that `datasets.load_dataset` can open: a local directory, or a name on the hub."""

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from gnflow.data.digests import hash_file
from gnflow.data.sources.columns import find_field
from gnflow.data.sources.corpus import Corpus, Json, Piece, split, wrap_texts
from gnflow.data.sources.faults import require_sound
from gnflow.data.sources.installed import require
from gnflow.data.sources.named import Named, compute_digests
from gnflow.data.sources.opened import Opened
from gnflow.data.sources.patterns import find_matches
from gnflow.data.sources.readers import check_text
from gnflow.errors import DataError
from gnflow.spec.data import HuggingFace
from gnflow.spec.splits import is_sliced

NO_SUCH_SPLIT = re.compile(r"(Bad|Unknown) split")


def open_dataset(source: HuggingFace, root: Path) -> Opened:
    """Open a source of Hugging Face's datasets; its spec names this function as its factory."""
    return Opened(lambda sha256: identify(source, root, sha256), lambda: open_corpus(source, root))


def identify(source: HuggingFace, root: Path, sha256: Callable[[Path], str]) -> Json:
    """Return the digests of a local directory; None for a name on the hub, since its data is prepared only once."""
    directory = root / source.path
    if not directory.is_dir():
        return None
    return {path.relative_to(directory).as_posix(): sha256(path) for path in find_matches("**/*", directory)}


def open_corpus(source: HuggingFace, root: Path) -> Corpus:
    """Open the rows of both splits. Raises DataError, and EnvironmentProblem without the package."""
    local = (root / source.path).is_dir()

    def read_documents(name: str) -> Iterator[Piece]:
        # One bad row of a directory has all others looked for; the hub may be larger than what is worth reading for it.
        return require_sound(_read_documents(source, name, root), read_everything if local else None)

    def read_everything() -> Iterator[Piece | DataError]:
        names = [source.split] if source.held_out_fraction is not None else [source.split, source.held_out]
        return (piece for name in names for piece in _read_documents(source, name, root))

    if source.held_out_fraction is not None:
        return split(lambda: read_documents(source.split), source.held_out_fraction)
    if local:
        _require_other_files(source, root)
    if is_sliced(source.split + source.held_out):
        _require_other_rows(source, root)
    return Corpus(lambda: read_documents(source.split), lambda: read_documents(source.held_out))


def _read_documents(source: HuggingFace, split: str, root: Path) -> Iterator[Piece | DataError]:
    return wrap_texts(_read_texts(source, split, root))


def _read_texts(source: HuggingFace, split: str, root: Path) -> Iterator[str | DataError]:
    datasets = _import_package()
    # Slices such as train[:1%] exist for whole data sets only; streaming spares a copy or a whole download.
    streaming = ((root / source.path).is_dir() or source.documents is not None) and not is_sliced(split)
    place = f"{source.path}, split {split}"
    row = 0
    try:
        rows = datasets.load_dataset(_find_path(source, root), source.name, split=split, streaming=streaming)
        for row, fields in enumerate(rows, 1):
            if source.documents is not None and row > source.documents:
                return
            here = f"{place}, row {row}"
            # A column that is not in one row is in none: that is one fault.
            yield check_text(find_field(fields, source.column, here), here, source.column)
    except DataError:
        raise
    except Exception as error:
        # The library raises whatever its file systems, decoders and builders raise.
        yield _explain_failure(source, split, place, row, error)


def _explain_failure(source: HuggingFace, split: str, place: str, row: int, error: Exception) -> DataError:
    advice = "check data.source, and that the directory or the hub can be read"
    if split == source.held_out and NO_SUCH_SPLIT.search(str(error)):
        advice = f"to hold out the last part of `{source.split}`, write `held_out_fraction: 0.05` in data.source"
    return DataError(f"{place}: the package datasets failed after row {row}: {type(error).__name__}: {error}\n{advice}")


def _require_other_files(source: HuggingFace, root: Path) -> None:
    """Raise DataError if a file of the split to train on has the content of a held-out one."""
    datasets = _import_package()
    try:
        found = datasets.load_dataset_builder(_find_path(source, root), source.name).config.data_files or {}
    except Exception:  # reading the rows meets it again, and says what it is
        return
    train, held_out = ([Path(file) for file in found.get(name, ())] for name in (source.split, source.held_out))
    compute_digests(Named(train, held_out), (root / source.path).resolve(), hash_file)


def _require_other_rows(source: HuggingFace, root: Path) -> None:
    """Raise DataError if slices share rows, which may depend on the number of rows."""
    datasets = _import_package()
    try:
        lengths = {
            name: info.num_examples
            for part in (source.split, source.held_out)
            for name, info in datasets.load_dataset(
                _find_path(source, root), source.name, split=part
            ).info.splits.items()
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


def _find_path(source: HuggingFace, root: Path) -> str:
    directory = root / source.path
    return str(directory.resolve()) if directory.is_dir() else source.path


def _import_package() -> Any:
    require("datasets", "a huggingface source", "hf")
    import datasets  # type: ignore[import-untyped]  # it ships no types

    return datasets
