"""Text, JSONL and Parquet files under the project root."""

from collections.abc import Callable, Iterator
from pathlib import Path

from gnflow.data.sources.corpus import Corpus, Json, Piece
from gnflow.data.sources.named import corpus_of, digests, named
from gnflow.data.sources.opened import Opened
from gnflow.data.sources.readers import read
from gnflow.errors import DataError
from gnflow.spec.data import Files


def open_files(source: Files, root: Path) -> Opened:
    """Open a source of files; its spec names this function as its factory."""
    return Opened(lambda sha256: identity(source, root, sha256), lambda: corpus(source, root))


def identity(source: Files, root: Path, sha256: Callable[[Path], str]) -> Json:
    """Path, size and content of every file."""
    files = named(source.paths, source.held_out, root)
    digest = digests(files, root, sha256)
    return [
        {"path": path.relative_to(root).as_posix(), "bytes": path.stat().st_size, "sha256": digest[path]}
        for part in files
        for path in part
    ]


def corpus(source: Files, root: Path) -> Corpus:
    """The documents of the files, in order. Raises DataError."""
    files = named(source.paths, source.held_out, root)
    return corpus_of(files, lambda part: _documents(part, source), source.held_out_fraction)


def _documents(files: list[Path], source: Files) -> Iterator[Piece | DataError]:
    for path in files:
        yield from read(path, source.column, source.encoding)
