"""Any bytes as a manifest or a shard: batches of ids, or a DataError.

The first byte of an input says which of the two the rest is. The manifest of a fuzzed shard has its right digest, as if
somebody had written both; otherwise nothing behind the check of digests would ever be read.
"""

import hashlib
import json
import shutil
import tempfile
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import numpy as np

from gnflow.data import shards
from gnflow.data.batches import Batches, take_held_out
from gnflow.data.dataset import FORMAT, open_dataset
from gnflow.data.digests import Digests
from gnflow.errors import DataError
from gnflow.spec.data import Bytes, Text

KEY = "0" * 64
VOCABULARY = 256
MANIFEST, TRAIN, HELD_OUT = range(3)
NAMES = {TRAIN: "train.npy", HELD_OUT: "held_out.npy"}


@cache
def good() -> dict[str, bytes]:
    """The files of a prepared directory."""
    root = Path(tempfile.mkdtemp(prefix="fuzz_good_"))
    for name in NAMES.values():
        shards.write_ids(root / name, VOCABULARY, [(np.arange(40, dtype=np.uint32), 40)])
    files = {name: (root / name).read_bytes() for name in NAMES.values()}
    shutil.rmtree(root)
    return {**files, shards.MANIFEST: manifest(files)}


def manifest(files: dict[str, bytes]) -> bytes:
    """The manifest that says that these are right."""
    entries = {
        name: {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()} for name, content in files.items()
    }
    splits = {name: {"tokens": 40, "bytes": 40} for name in ("train", "held_out")}
    found = {"key": KEY, "format": FORMAT, "vocabulary": VOCABULARY, "files": entries, "splits": splits}
    return json.dumps(found).encode()


@cache
def place() -> Path:
    """Where they are put."""
    return Path(tempfile.mkdtemp(prefix="fuzz_shards_"))


def check(content: bytes) -> DataError | None:
    """The refusal, if it is refused. Raises what should not be raised."""
    files = dict(good())
    kind, rest = content[:1] or b"\0", content[1:]
    if kind[0] % 3 == MANIFEST:
        files[shards.MANIFEST] = rest
    else:
        files[NAMES[kind[0] % 3]] = rest
        files[shards.MANIFEST] = manifest({name: files[name] for name in NAMES.values()})
    for name, written in files.items():
        (place() / name).unlink(missing_ok=True)  # the last one may still be mapped
        (place() / name).write_bytes(written)
    try:
        dataset = open_dataset(place(), KEY, Text(tokenizer=Bytes()), Digests(place() / "digests.json"))
        taken = Batches(dataset.train, rows=2, context=4, seed=0).take(0, 2)
        held = take_held_out(dataset.held_out, 2, 4, 1)
    except DataError as error:
        str(error)
        return error
    assert (taken.shape, held.shape) == ((2, 2, 5), (1, 2, 5))
    return None


def seeds() -> Iterator[bytes]:
    """What fuzzing begins with."""
    files = good()
    yield bytes([MANIFEST]) + files[shards.MANIFEST]
    for kind, name in NAMES.items():
        yield bytes([kind]) + files[name]
        for version in ((1, 0), (2, 0), (3, 0)):
            for dtype in ("<u2", "<u4", ">u2", "<f8", "|S3", "|O"):
                yield bytes([kind]) + npy(version, f"{{'descr': '{dtype}', 'fortran_order': False, 'shape': (40,), }}")
        yield bytes([kind]) + npy((1, 0), "{'descr': [('a', '<u2')], 'fortran_order': True, 'shape': (4, 10), }")


def npy(version: tuple[int, int], header: str) -> bytes:
    """A file with this header and 80 bytes."""
    text = header.encode().ljust(117) + b"\n"
    return (
        b"\x93NUMPY" + bytes(version) + len(text).to_bytes(2 if version == (1, 0) else 4, "little") + text + bytes(80)
    )


def words() -> list[str]:
    """What stands in manifests and headers."""
    return [
        "descr", "fortran_order", "shape", "True", "False", "<u2", "<u4", ">f8", "|O", "|V0", "<M8[ns]",
        "\x93NUMPY", "PK\x03\x04", "key", "format", "vocabulary", "files", "splits", "bytes", "sha256", "tokens",
        "null", "-1", "1e999", "train.npy", "../train.npy", "held_out.npy", "/dev/zero",
    ]  # fmt: skip
