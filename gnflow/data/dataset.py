"""Prepared shards, checked against their manifest when they are opened."""

import contextlib
import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NotRequired, TypedDict

import numpy as np
import torch
from numpy.typing import NDArray

from gnflow.data import batches
from gnflow.data.batches import Batches, Tokens, count_rows
from gnflow.data.digests import Digests, hash_file
from gnflow.data.microbatches import format_ids
from gnflow.data.shards import MANIFEST, map_shard
from gnflow.data.tokenizers import open_tokenizer
from gnflow.errors import DataError
from gnflow.spec.data import Text

FORMAT = 2
TOKENIZER = "tokenizer.json"
# Up to this size a shard is read and hashed at every opening (10 MB take about 10 ms).
REMEMBER_FROM = 1 << 26


class File(TypedDict):
    """One file of a prepared directory."""

    bytes: int
    sha256: str


class Manifest(TypedDict):
    """The content of the file that is written beside the shards."""

    key: str
    format: int
    vocabulary: int
    files: dict[str, File]
    splits: dict[str, dict[str, int]]
    reconstruction: NotRequired[dict[str, float]]


@dataclass(frozen=True)
class Dataset:
    """Token ids of both splits, memory-mapped."""

    directory: Path
    vocabulary: int
    digest: str
    """SHA-256 over both shards and the tokenizer."""
    train: Tokens
    held_out: Tokens
    bytes_per_token: float | None
    """UTF-8 bytes of held-out text for each of its tokens; None for ready tokens."""
    data: Text

    @property
    def pictures(self) -> None:
        """Always None, since this data has no images."""

    def make_microbatches(self, rows: int, seed: int, stream: str = "train") -> Batches:
        """Make the endless sequence of micro-batches of training text, each of `rows` rows."""
        shuffled = stream != "train" or not self.data.source.is_sequential
        return Batches(self.train, rows, self.data.context, seed, stream, shuffled)

    def take_held_out(self, rows: int, most: int) -> torch.Tensor:
        """Return at most `most` held-out micro-batches, in which no row comes twice; one if there are fewer rows."""
        whole = max(count_rows(len(self.held_out), self.data.context) // rows, 1)
        return batches.take_held_out(self.held_out, rows, self.data.context, min(most, whole))

    def decode_row(self, row: torch.Tensor) -> str:
        """Return the text of a row, or its ids if the source gave ids."""
        if self.data.cut_by is None:
            return format_ids(row)
        return open_tokenizer(self.data.cut_by, self.directory).decode(row.numpy().astype(np.uint32))

    def describe(self) -> list[str]:
        """Describe tokens and rows of both splits, a line each."""
        lines = []
        for name, tokens in (("train", self.train), ("held out", self.held_out)):
            rows = count_rows(len(tokens), self.data.context)
            lines.append(f"{name:<9} {len(tokens):>13,} tokens  {rows:>11,} rows of {self.data.context}")
        if self.bytes_per_token:
            lines.append(f"held-out text has {self.bytes_per_token:.3f} bytes a token")
        return lines


def open_dataset(directory: Path, key: str, data: Text, digests: Digests) -> Dataset:
    """Open the shards in `directory`. Raises DataError if they are damaged or of another corpus."""
    with guard_opening(directory):
        manifest = read_manifest(directory, key, FORMAT, digests)
        text = manifest["splits"]["held_out"]
        return Dataset(
            directory,
            manifest["vocabulary"],
            compute_digest(manifest),
            map_array(directory / "train.npy", 1),
            map_array(directory / "held_out.npy", 1),
            text["bytes"] / text["tokens"] if text["bytes"] else None,
            data,
        )


def map_array(path: Path, axes: int) -> NDArray[Any]:
    """Map a file of a prepared directory into memory. Raises DataError if gnflow has not written it."""
    try:
        return map_shard(path, axes)
    except ValueError as error:
        raise explain_damage(path, str(error)) from None


class Standing:
    """The files of a prepared directory, while a run reads them."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._manifest = (directory / MANIFEST).read_bytes()
        self._files: dict[str, File] = json.loads(self._manifest)["files"]
        self._seen = self._look()

    def require_unchanged(self) -> None:
        """Raise DataError if the content of a file has changed. Only files that were touched are read."""
        now = self._look()
        for name in sorted(now):
            # DVC puts a link to the same content in the place of a file.
            if now[name] != self._seen[name] and not self._is_same(name):
                raise explain_damage(
                    self.directory / name,
                    "it changed while the run read it, and the steps since the last checkpoint are lost",
                )
        self._seen = now

    def _look(self) -> dict[str, tuple[int, int, int] | None]:
        return {name: _read_mark(self.directory / name) for name in (MANIFEST, *self._files)}

    def _is_same(self, name: str) -> bool:
        path = self.directory / name
        if not path.is_file():
            return False
        if name == MANIFEST:
            return path.read_bytes() == self._manifest
        return hash_file(path) == self._files[name]["sha256"]


def _read_mark(path: Path) -> tuple[int, int, int] | None:
    with contextlib.suppress(FileNotFoundError):
        stat = path.stat()
        return stat.st_mtime_ns, stat.st_size, stat.st_ino
    return None


@contextmanager
def guard_opening(directory: Path) -> Iterator[None]:
    """Turn every error that a damaged directory causes into DataError."""
    try:
        yield
    except OSError as error:
        raise explain_damage(Path(error.filename or directory), error.strerror or str(error)) from None
    except (ValueError, LookupError, TypeError, AttributeError, ArithmeticError, RecursionError) as error:
        raise explain_damage(directory / MANIFEST, f"{type(error).__name__}: {error}") from None


def read_manifest(directory: Path, key: str, form: int, digests: Digests) -> Manifest:
    """Read the manifest in `directory` and verify its files. `guard_opening` turns its errors into DataError."""
    manifest: Manifest = json.loads((directory / MANIFEST).read_bytes())
    if manifest["key"] != key or manifest["format"] != form:
        raise explain_damage(directory / MANIFEST, "it belongs to another corpus or format")
    files = manifest["files"]
    for name in sorted(files):
        if Path(name).name != name:
            raise explain_damage(directory / MANIFEST, f"it names `{name}`, which is no file beside it")
        _verify(directory / name, files[name]["bytes"], files[name]["sha256"], digests)
    return manifest


def compute_digest(manifest: Manifest) -> str:
    """Return the SHA-256 digest over all files of the prepared directory."""
    digests = {name: file["sha256"] for name, file in manifest["files"].items()}
    return hashlib.sha256(json.dumps(digests, sort_keys=True).encode()).hexdigest()


def explain_damage(path: Path, reason: str) -> DataError:
    """Make the error that says how to repair a prepared directory."""
    return DataError(
        f"{path} is damaged: {reason}\ndelete the directory {path.parent}; it is made again when it is next needed"
    )


def _verify(path: Path, size: int, sha256: str, digests: Digests) -> None:
    found = path.stat().st_size
    if not path.is_file():
        raise explain_damage(path, "it is no regular file")
    if found != size:
        raise explain_damage(path, f"it has {found} bytes, and the manifest says {size}")
    digest = digests.sha256(path, REMEMBER_FROM)
    if digest != sha256:
        raise explain_damage(path, f"its SHA-256 is {digest[:12]}..., and the manifest says {sha256[:12]}...")
