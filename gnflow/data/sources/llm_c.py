"""Shards of llm.c: a header of 256 whole numbers of four bytes, then tokens of two bytes each, all little-endian.

The header begins with a magic number, the version and the number of tokens; the rest of it is zero.
Source: dev/data/data_common.py of github.com/karpathy/llm.c.
"""

import struct
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from gnflow.data.sources.paths import guard_read
from gnflow.errors import DataError

ENDING = ".bin"
MAGIC, VERSION = 20240520, 1
LLAMA = 20240801
HEADER = 1024  # bytes
WIDTH = 2  # bytes of a token
CONVERT = (
    "if it has tokens alone, as the files of nanoGPT, convert it: "
    "numpy.save('train.npy', numpy.fromfile('train.bin', dtype='uint16'))"
)


def map_shard(path: Path) -> NDArray[np.uint16]:
    """Map the tokens of a shard into memory. Raises DataError that names the byte at which a shard is wrong."""
    with guard_read(path), path.open("rb") as file:
        header = file.read(HEADER)
        size = path.stat().st_size
    magic, version, tokens = struct.unpack("<3i", header[:12].ljust(12, b"\0"))
    if magic != MAGIC and len(header) >= 4:
        kind = "; it is a shard for Llama 3, whose ids have four bytes" if magic == LLAMA else ""
        raise DataError(
            f"{path}, byte 0: the magic number is {magic}, not {MAGIC}: this is no shard of llm.c{kind}\n{CONVERT}"
        )
    if len(header) < HEADER:
        raise DataError(
            f"{path} ends at byte {size}, inside the header of a shard of llm.c, which takes {HEADER} bytes\n"
            "copy or download it again"
        )
    if version != VERSION:
        raise DataError(
            f"{path}, byte 4: the version is {version}, not {VERSION}\n"
            "write the shard again with a current version of llm.c's scripts"
        )
    if tokens < 0 or size != find_byte(tokens):
        raise DataError(
            f"{path}, byte 8: the header promises {tokens} tokens, which would end at byte {find_byte(tokens)}, "
            f"but the file ends at byte {size}\ncopy or download it again"
        )
    if not tokens:
        return np.empty(0, dtype="<u2")
    return np.memmap(path, dtype="<u2", mode="r", offset=HEADER, shape=(tokens,))


def find_byte(token: int) -> int:
    """Return the place in the file at which this token begins."""
    return HEADER + WIDTH * token
