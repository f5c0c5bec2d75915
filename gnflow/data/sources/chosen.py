"""From the source that a spec names to what its factory makes of it, with one clear error for one that is at fault."""

import importlib
import json
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from gnflow.data.sources.corpus import Corpus, Json, Piece, Pieces
from gnflow.data.sources.opened import Identity, Ids, Opened, Ready, Sha256
from gnflow.errors import EnvironmentProblem, GnflowError
from gnflow.spec.base import Kind
from gnflow.spec.data import SourceKind

Thing = TypeVar("Thing")
OURS = (__file__, importlib.__file__)


def built(spec: Kind, expected: type[Thing], *arguments: object) -> Thing:
    """What the factory of a spec returns. Raises EnvironmentProblem unless there is such a factory, and it does."""
    module, _, name = spec.factory.partition(":")
    if not name:
        raise _fault(spec, "is no factory; expected `module:function`")
    with _running(spec):
        thing = getattr(importlib.import_module(module), name)(*arguments)
    if not isinstance(thing, expected):
        raise _fault(spec, f"returned {type(thing).__name__}; expected {expected.__module__}.{expected.__name__}")
    return thing


def open_texts(source: SourceKind, root: Path) -> Opened:
    """A source of text. It and what it gives raise DataError, and EnvironmentProblem for code that is at fault."""
    found = built(source, Opened, source, root)

    def corpus() -> Corpus:
        with _running(source):
            train, held_out = found.corpus()
        return Corpus(lambda: _pieces(source, train), lambda: _pieces(source, held_out))

    return Opened(_plain(source, found.identity), corpus)


def open_ids(source: SourceKind, root: Path, vocabulary: int) -> Ready:
    """A source of ids below `vocabulary`. It raises as `open_texts` does."""
    found = built(source, Ready, source, root)
    return Ready(
        _plain(source, found.identity),
        lambda: _ids(source, found.train, vocabulary),
        lambda: _ids(source, found.held_out, vocabulary),
    )


def _plain(source: SourceKind, identity: Identity) -> Identity:
    def plain(sha256: Sha256) -> Json:
        with _running(source):
            found = identity(sha256)
            json.dumps(found)
        return found

    return plain


def _pieces(source: SourceKind, read: Pieces) -> Iterator[Piece]:
    with _running(source):
        for piece in read():
            if not isinstance(piece, Piece) or not isinstance(piece.text, str):
                text = piece.text if isinstance(piece, Piece) else piece
                raise _fault(source, f"gave {type(text).__name__} for a text; expected str")
            piece.text.encode()
            yield piece


def _ids(source: SourceKind, read: Ids, vocabulary: int) -> Iterator[NDArray[np.integer]]:
    with _running(source):
        for ids in read():
            if not isinstance(ids, np.ndarray) or ids.ndim != 1 or ids.dtype.kind not in "iu":
                raise _fault(source, f"gave {type(ids).__name__} for ids; expected one-dimensional arrays of integers")
            if len(ids) and not 0 <= ids.min() <= ids.max() < vocabulary:
                raise _fault(source, f"gave ids from {ids.min()} to {ids.max()}; expected 0 to {vocabulary - 1}")
            yield ids


@contextmanager
def _running(spec: Kind) -> Iterator[None]:
    """Turn whatever the code of a kind raises into one line."""
    try:
        yield
    except GnflowError:
        raise
    except Exception as error:
        frames = traceback.extract_tb(error.__traceback__)
        theirs = [frame for frame in frames if frame.filename not in OURS and not frame.filename.startswith("<")]
        place = f" ({theirs[-1].filename}, line {theirs[-1].lineno})" if theirs else ""
        raise _fault(spec, f"failed: {type(error).__name__}: {error}{place}") from error


def _fault(spec: Kind, problem: str) -> EnvironmentProblem:
    return EnvironmentProblem(f"kind `{spec.kind}`: {spec.factory or 'it'} {problem}")
