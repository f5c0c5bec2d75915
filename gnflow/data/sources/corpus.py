"""The types that a source of text gives: the documents of both splits, any number of times."""

from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

from gnflow.errors import DataError

Json = None | bool | int | float | str | list["Json"] | dict[str, "Json"]


class Piece(NamedTuple):
    """A run of characters of one document; a long document comes in several."""

    text: str
    ends: bool
    """The document ends here."""


Pieces = Callable[[], Iterator[Piece]]


class Corpus(NamedTuple):
    """Documents to train on and to hold out. Each function starts from the beginning whenever it is called."""

    train: Pieces
    held_out: Pieces


def wrap_texts(texts: Iterable[str | DataError]) -> Iterator[Piece | DataError]:
    """Make each text one document in one piece. Empty texts are left out, and errors stay in their places."""
    return (text if isinstance(text, DataError) else Piece(text, True) for text in texts if text)


def join_pieces(pieces: Iterable[Piece]) -> Iterator[Piece]:
    """Join the pieces of each document."""
    parts: list[str] = []
    for piece in pieces:
        parts.append(piece.text)
        if piece.ends:
            yield Piece("".join(parts), True)
            parts = []


def count_kept(count: int, fraction: float) -> int:
    """Return how many of so many are trained on if the last `fraction`, but at least one, is held out."""
    return count - max(1, round(count * fraction))


def split(read: Pieces, fraction: float) -> Corpus:
    """Hold out the last `fraction` of the documents, or of the characters when there is one document."""
    documents = characters = 0
    for piece in read():
        documents += piece.ends
        characters += len(piece.text)
    if documents > 1:
        first = max(1, count_kept(documents, fraction))
        return Corpus(lambda: _take_first(read(), first), lambda: _skip_first(read(), first))
    cut = count_kept(characters, fraction)
    return Corpus(lambda: _take_head(read(), cut), lambda: _skip_head(read(), cut))


def _take_first(pieces: Iterable[Piece], documents: int) -> Iterator[Piece]:
    for piece in pieces:
        yield piece
        documents -= piece.ends
        if not documents:
            return


def _skip_first(pieces: Iterable[Piece], documents: int) -> Iterator[Piece]:
    for piece in pieces:
        if documents:
            documents -= piece.ends
        else:
            yield piece


def _take_head(pieces: Iterable[Piece], characters: int) -> Iterator[Piece]:
    for piece in pieces:
        if characters <= len(piece.text):
            yield Piece(piece.text[:characters], True)
            return
        characters -= len(piece.text)
        yield piece


def _skip_head(pieces: Iterable[Piece], characters: int) -> Iterator[Piece]:
    for piece in pieces:
        if characters < len(piece.text):
            yield Piece(piece.text[characters:], piece.ends)
        characters = max(0, characters - len(piece.text))
