"""Call the factory of the source that a spec names, and check everything that the factory's result gives."""

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from gnflow.data.sources.corpus import Corpus, Json, Piece, Pieces
from gnflow.data.sources.opened import Identity, Ids, Opened, Ready, Sha256
from gnflow.spec.data import SourceKind
from gnflow.spec.factory import call_factory, guard_plugin, make_fault


def open_texts(source: SourceKind, root: Path) -> Opened:
    """Open a source of text. It raises DataError, and EnvironmentProblem if the code of the source is at fault."""
    found = call_factory(source, Opened, source, root)

    def open_corpus() -> Corpus:
        with guard_plugin(source):
            train, held_out = found.corpus()
        return Corpus(lambda: _check_pieces(source, train), lambda: _check_pieces(source, held_out))

    return Opened(_guard_identity(source, found.identity), open_corpus)


def open_ids(source: SourceKind, root: Path, vocabulary: int) -> Ready:
    """Open a source of ids below `vocabulary`. It raises the errors of `open_texts`."""
    found = call_factory(source, Ready, source, root)
    return Ready(
        _guard_identity(source, found.identity),
        lambda: _check_ids(source, found.train, vocabulary),
        lambda: _check_ids(source, found.held_out, vocabulary),
    )


def _guard_identity(source: SourceKind, identity: Identity) -> Identity:
    def identify(sha256: Sha256) -> Json:
        with guard_plugin(source):
            found = identity(sha256)
            json.dumps(found)
        return found

    return identify


def _check_pieces(source: SourceKind, read: Pieces) -> Iterator[Piece]:
    with guard_plugin(source):
        for piece in read():
            if not isinstance(piece, Piece) or not isinstance(piece.text, str):
                text = piece.text if isinstance(piece, Piece) else piece
                raise make_fault(source, f"its factory gave {type(text).__name__} for a text; expected str")
            piece.text.encode()
            yield piece


def _check_ids(source: SourceKind, read: Ids, vocabulary: int) -> Iterator[NDArray[np.integer]]:
    with guard_plugin(source):
        for ids in read():
            if not isinstance(ids, np.ndarray) or ids.ndim != 1 or ids.dtype.kind not in "iu":
                raise make_fault(
                    source,
                    f"its factory gave {type(ids).__name__} for ids; expected one-dimensional arrays of integers",
                )
            if len(ids) and not 0 <= ids.min() <= ids.max() < vocabulary:
                raise make_fault(
                    source, f"its factory gave ids from {ids.min()} to {ids.max()}; expected 0 to {vocabulary - 1}"
                )
            yield ids
