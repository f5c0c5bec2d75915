"""Text, JSONL and Parquet files under the project root."""

from collections.abc import Callable, Iterator
from pathlib import Path

from gnflow.data.sources.corpus import Corpus, Json, Piece, split
from gnflow.data.sources.opened import Opened
from gnflow.data.sources.paths import matching
from gnflow.data.sources.readers import read
from gnflow.errors import DataError
from gnflow.spec.data import Files


def open_files(source: Files, root: Path) -> Opened:
    """The factory."""
    return Opened(lambda sha256: identity(source, root, sha256), lambda: corpus(source, root))


def identity(source: Files, root: Path, sha256: Callable[[Path], str]) -> Json:
    """Path, size and content of every file."""
    return [
        {"path": path.relative_to(root).as_posix(), "bytes": path.stat().st_size, "sha256": sha256(path)}
        for files in _chosen(source, root)
        for path in files
    ]


def corpus(source: Files, root: Path) -> Corpus:
    """The documents of the files, in order. Raises DataError."""
    train, held_out = _chosen(source, root)
    if not held_out:
        return split(lambda: _documents(train, source.column), source.held_out_fraction)
    return Corpus(lambda: _documents(train, source.column), lambda: _documents(held_out, source.column))


def _chosen(source: Files, root: Path) -> tuple[list[Path], list[Path]]:
    """Files to train on and to hold out: what is held out is never trained on, though a pattern of `paths` names it."""
    held_out = matching(source.held_out, root, "data.source.held_out")
    named = matching(source.paths, root, "data.source.paths")
    train = [path for path in named if path not in held_out]
    if not train:
        raise DataError("data.source.paths: every file is held out\nname fewer files in data.source.held_out")
    return train, held_out


def _documents(files: list[Path], column: str) -> Iterator[Piece]:
    for path in files:
        yield from read(path, column)
