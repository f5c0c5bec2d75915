"""One bit of a file turned over, and nothing else about it, as a disk does it."""

import os
from pathlib import Path


def flip(path: Path, place: int) -> None:
    before, content = path.stat(), bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(content)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
