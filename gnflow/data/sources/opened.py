"""The results of a source's factory: `Opened` for text, `Ready` for token ids.

A source is a class with its keys and a function, which its `factory` names. The function is called as
`poems(source, root)`; it should only look at its arguments, and leave files alone until what it returns is called:

    class Poems(SourceKind):
        factory = "my_sources:poems"
        kind: Literal["poems"] = "poems"
        folder: Path

    def poems(source: Poems, root: Path) -> Opened:
        def files() -> list[Path]:
            return sorted((root / source.folder).glob("*.txt"))

        return from_texts(
            identity=lambda sha256: {path.name: sha256(path) for path in files()},
            train=lambda: (path.read_text() for path in files()),
        )

A source raises `gnflow.errors.DataError` for what its user can repair; its message is shown as it is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from gnflow.data.sources.corpus import Corpus, Json, split, wrap_texts
from gnflow.data.sources.faults import require_sound

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

Sha256 = Callable[[Path], str]
"""The digest of a file. A large file that did not change is not read again."""
Identity = Callable[[Sha256], Json]
"""A function that returns everything that identifies a corpus besides the keys of its source.

Prepared shards are stored under this identity, so a corpus whose texts change but whose identity does not is not
prepared again. The function is called before and after the corpus is read; a corpus that changed meanwhile is refused.
"""
Texts = Callable[[], Iterable[str]]
Ids = Callable[[], "Iterable[NDArray[np.integer]]"]


class Opened(NamedTuple):
    """A source of text."""

    identity: Identity
    corpus: Callable[[], Corpus]


class Ready(NamedTuple):
    """A source of token ids. `train` and `held_out` give them in chunks of any length, in order."""

    identity: Identity
    train: Ids
    held_out: Ids


def from_texts(
    identity: Identity, train: Texts, held_out: Texts | None = None, held_out_fraction: float = 0.05
) -> Opened:
    """Make a source in which every text is one document.

    Each function gives all its texts whenever it is called. Without `held_out`, the last part of `train` is held out.
    """
    if held_out is None:
        return Opened(identity, lambda: split(lambda: require_sound(wrap_texts(train())), held_out_fraction))
    return Opened(
        identity,
        lambda: Corpus(lambda: require_sound(wrap_texts(train())), lambda: require_sound(wrap_texts(held_out()))),
    )
