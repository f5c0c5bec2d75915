"""SHA-256 of files, without reading a large unchanged file twice."""

import contextlib
import hashlib
import json
import os
import time
from pathlib import Path

from gnflow.data.sources.paths import guard_read

# A file written this recently may be written again without its modification time telling.
SETTLED = 2_000_000_000


def hash_file(path: Path) -> str:
    """Return the SHA-256 digest of a file's content in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class Digests:
    """A memory of digests by path in one JSON file. It forgets a digest when time, size or inode change."""

    def __init__(self, memory: Path):
        self.memory = memory
        self.known: dict[str, list[int | str]] = {}
        self.learned = False
        with contextlib.suppress(OSError, ValueError):
            known = json.loads(memory.read_bytes())
            self.known = known if isinstance(known, dict) else {}

    def sha256(self, path: Path, remember_from: int = 0) -> str:
        """Return the digest of a file. One of fewer than `remember_from` bytes is always read. Raises DataError."""
        with guard_read(path), path.open("rb") as file:
            found = os.fstat(file.fileno())
            mark = [found.st_mtime_ns, found.st_size, found.st_ino]
            name = str(path.absolute())
            *known, digest = self.known.get(name, [""])
            if known == mark and found.st_size >= remember_from:
                return str(digest)
            digest = hash_file(path)
        if found.st_size >= remember_from and time.time_ns() - found.st_mtime_ns > SETTLED:
            self.known[name] = [*mark, digest]
            self.learned = True
        return digest

    def save(self) -> None:
        """Save the digests. If the project cannot be written to, nothing is saved."""
        if not self.learned:
            return
        temporary = self.memory.with_suffix(f".{os.getpid()}")
        with contextlib.suppress(OSError):
            self.memory.parent.mkdir(parents=True, exist_ok=True)
            temporary.write_text(json.dumps(self.known))
            temporary.replace(self.memory)
