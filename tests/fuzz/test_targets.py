"""The fuzzed readers on their seeds, and on what fuzzing once found fault with. `make fuzz` goes on from there."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from fuzz import shard_reading, spec_loading

from gnflow.data.dataset import FORMAT, open_dataset
from gnflow.data.digests import Digests
from gnflow.errors import DataError
from gnflow.spec.data import Text

SHARDS = shard_reading.good()
HEADER = "{'descr': '<u2', 'fortran_order': False, 'shape': (40,), }"
FOUND_IN_SHARDS = {
    "a header that ends in the middle of a bracket": HEADER.replace(", }", ", },}").replace("(40,)", "(40,"),
    "numbers that are no ids": HEADER.replace("<u2", "<f8"),
    "bytes turned round": HEADER.replace("<u2", ">u2"),
    "two axes": HEADER.replace("(40,)", "(20,2)"),
    "no axis": HEADER.replace("(40,)", "()"),
    "objects": HEADER.replace("<u2", "|O"),
    "a negative length": HEADER.replace("40", "-4"),
    "a length beyond the file": HEADER.replace("40", "4" * 30),
    "no dictionary": "[" * 90,
}
FOUND_IN_MANIFESTS = {
    "depth": b"[" * 100_000,
    "a list": b"[]",
    "files in a list": b'{"key": "%b", "format": 2, "files": ["train.npy"]}' % shard_reading.KEY.encode(),
    "no text": SHARDS["manifest.json"].replace(b'"tokens": 40', b'"tokens": 0'),
    "a device": shard_reading.manifest({"/dev/zero": b""}),
    "a file of somebody else": shard_reading.manifest({"../../etc/passwd": b""}),
}


@pytest.mark.parametrize("target", [spec_loading, shard_reading], ids=lambda target: target.__name__)
def test_the_seeds_are_read_or_refused(target: Callable) -> None:
    assert len([target.check(seed) for seed in target.seeds()]) > 30
    assert len(target.words()) > 20


@pytest.mark.parametrize("name", FOUND_IN_SHARDS)
def test_a_shard_that_is_none_is_refused_by_name(name: str) -> None:
    content = bytes([shard_reading.TRAIN]) + shard_reading.npy((1, 0), FOUND_IN_SHARDS[name])
    assert "train.npy is damaged" in str(shard_reading.check(content))


@pytest.mark.parametrize("name", FOUND_IN_MANIFESTS)
def test_a_manifest_that_is_none_is_refused_by_name(name: str) -> None:
    content = bytes([shard_reading.MANIFEST]) + FOUND_IN_MANIFESTS[name]
    assert "manifest.json is damaged" in str(shard_reading.check(content))


def test_a_device_in_the_place_of_a_shard_is_not_read(tmp_path: Path) -> None:
    (tmp_path / "train.npy").symlink_to("/dev/zero")  # its size is 0, and its content has no end
    manifest = json.loads(shard_reading.manifest({"train.npy": b""}))
    (tmp_path / "manifest.json").write_text(json.dumps(manifest | {"format": FORMAT}))
    with pytest.raises(DataError, match=r"train\.npy is damaged: it is no regular file"):
        open_dataset(tmp_path, shard_reading.KEY, Text(), Digests(tmp_path / "digests.json"))
