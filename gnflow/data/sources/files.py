"""Text, JSONL and Parquet files under the project root."""

from collections.abc import Callable, Iterator
from pathlib import Path

from gnflow.data.sources.corpus import Corpus, Json, Piece
from gnflow.data.sources.named import compute_digests, find_files, make_corpus
from gnflow.data.sources.opened import Opened
from gnflow.data.sources.readers import read
from gnflow.errors import DataError
from gnflow.spec.data import Files


def open_files(source: Files, root: Path) -> Opened:
    """Open a source of files; its spec names this function as its factory."""
    return Opened(lambda sha256: identify(source, root, sha256), lambda: open_corpus(source, root))


def identify(source: Files, root: Path, sha256: Callable[[Path], str]) -> Json:
    """Return path, size and digest of every file."""
    files = find_files(source.paths, source.held_out, root)
    digest = compute_digests(files, root, sha256)
    return [
        {"path": path.relative_to(root).as_posix(), "bytes": path.stat().st_size, "sha256": digest[path]}
        for part in files
        for path in part
    ]


def open_corpus(source: Files, root: Path) -> Corpus:
    """Open the documents of the files, in order. Raises DataError."""
    files = find_files(source.paths, source.held_out, root)
    return make_corpus(files, lambda part: _read_documents(part, source), source.held_out_fraction)


def _read_documents(files: list[Path], source: Files) -> Iterator[Piece | DataError]:
    for path in files:
        yield from read(path, source.column, source.encoding)
