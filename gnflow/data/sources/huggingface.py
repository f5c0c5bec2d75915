"""Datasets that `datasets.load_dataset` can open: a local directory, or a name on the hub."""

from collections.abc import Callable, Iterator
from pathlib import Path

from gnflow.data.sources.columns import field
from gnflow.data.sources.corpus import Corpus, Json, Piece, whole
from gnflow.data.sources.opened import Opened
from gnflow.data.sources.readers import text_of
from gnflow.errors import DataError, EnvironmentProblem
from gnflow.spec.data import HuggingFace


def open_dataset(source: HuggingFace, root: Path) -> Opened:
    """The factory."""
    return Opened(lambda sha256: identity(source, root, sha256), lambda: corpus(source, root))


def identity(source: HuggingFace, root: Path, sha256: Callable[[Path], str]) -> Json:
    """Content of a local directory. A name on the hub stands for itself: what was prepared once is what is used."""
    directory = root / source.path
    if not directory.is_dir():
        return None
    files = sorted(path for path in directory.rglob("*") if path.is_file())
    return {path.relative_to(directory).as_posix(): sha256(path) for path in files}


def corpus(source: HuggingFace, root: Path) -> Corpus:
    """The rows of both splits. Raises DataError, and EnvironmentProblem without the package."""
    return Corpus(lambda: _documents(source, source.split, root), lambda: _documents(source, source.held_out, root))


def _documents(source: HuggingFace, split: str, root: Path) -> Iterator[Piece]:
    return whole(_texts(source, split, root))


def _texts(source: HuggingFace, split: str, root: Path) -> Iterator[str]:
    try:
        import datasets  # type: ignore[import-untyped]  # it ships no types
    except ModuleNotFoundError:
        raise EnvironmentProblem(
            "a huggingface source needs the package datasets, which is not installed\nrun: pip install 'gnflow[hf]'"
        ) from None
    directory = root / source.path
    local = directory.is_dir()
    # Slices such as train[:1%] exist for whole data sets only; streaming spares a copy or a whole download.
    streaming = (local or source.documents is not None) and "[" not in split
    place = f"{source.path}, split {split}"
    row = 0
    try:
        path = str(directory) if local else source.path
        rows = datasets.load_dataset(path, source.name, split=split, streaming=streaming)
        for row, fields in enumerate(rows, 1):
            if source.documents is not None and row > source.documents:
                return
            here = f"{place}, row {row}"
            yield text_of(field(fields, source.column, here), here, source.column)
    except DataError:
        raise
    except Exception as error:
        # The library raises whatever its file systems, decoders and builders raise.
        raise DataError(
            f"{place}: the package datasets failed after row {row}: {type(error).__name__}: {error}\n"
            "check data.source, and that the directory or the hub can be read"
        ) from error
