"""The directory of compiled graphs that all projects of a user share, and its repair.

    <cache of the user>/gnflow/graphs/<digest of torch, Python, the processor and its instructions>

Inductor names a file after everything that it is made from, writes it under another name and renames it, and takes a
lock to compile. So any number of processes may share a directory, and a table that cannot be read is made again. One
thing is left: the linker writes a library in place. If it is killed, a torn library stays, which would end every later
run that needs it.
"""

import hashlib
import json
import os
import platform
import shutil
import struct
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from importlib import metadata
from pathlib import Path

TRIED = ".gnflow_"
"""The beginning of the name of a folder in which a process tries its compiler. Only this process may touch it."""
LEFT_AFTER = 3600.0  # seconds after which such a folder belongs to a process that was killed
ELF = b"\x7fELF\x02\x01"  # of 64 bits, little-endian
HEADER = 64  # bytes, of a 64-bit ELF file
PLACE_AT, SIZES_AT = 40, 58
"""Offsets in the header of the place of the table of sections, and of the size and the number of its entries."""


def find_shared() -> Path | None:
    """Return the directory for this torch on this processor; it need not exist yet. None without a home or torch."""
    base = os.environ.get("XDG_CACHE_HOME")
    with suppress(RuntimeError, metadata.PackageNotFoundError):
        home = Path(base) if base and Path(base).is_absolute() else Path.home() / _name_cache()
        return home / "gnflow" / "graphs" / _digest_machine()
    return None


def _name_cache() -> str:
    match sys.platform:
        case "darwin":
            return "Library/Caches"
        case "win32":
            return "AppData/Local"
        case _:
            return ".cache"


def _digest_machine() -> str:
    """Return a name for what Inductor's own names leave out: the code is made for one processor."""
    about = [metadata.version("torch"), sys.implementation.cache_tag, platform.machine(), platform.processor()]
    with suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text(errors="replace").splitlines()
        about += sorted({line for line in lines if line.startswith(("model name", "flags", "Features"))})
    return hashlib.sha256(json.dumps(about).encode()).hexdigest()[:16]


def measure(directory: Path) -> int:
    """Return the bytes of all files in the directory."""
    return sum(path.stat().st_size for path in _list_files(directory, ""))


def remove_torn(directory: Path) -> list[Path]:
    """Remove libraries and object files whose writer was killed, and return them. Those being written now stay.

    Folders that killed processes left from trying their compiler go, too.
    """
    removed: list[Path] = []
    if not sys.platform.startswith("linux"):
        return removed
    for folder in directory.glob(f"{TRIED}*"):
        with suppress(OSError):
            if time.time() - folder.stat().st_mtime > LEFT_AFTER:
                shutil.rmtree(folder, ignore_errors=True)
    for path in (path for ending in (".so", ".o") for path in _list_files(directory, ending)):
        with suppress(OSError):
            if _is_torn(path) and _is_idle(directory, path):
                path.unlink()
                removed.append(path)
    return removed


def _list_files(directory: Path, ending: str) -> Iterator[Path]:
    for folder, inner, names in os.walk(directory):
        # What another process tries its compiler with is torn until the linker has finished, and has no lock.
        inner[:] = [name for name in inner if not name.startswith(TRIED)]
        yield from (Path(folder, name) for name in names if name.endswith(ending))


def _is_torn(path: Path) -> bool:
    """Tell whether an ELF file ends before its table of sections does, which is the last thing in it."""
    with path.open("rb") as file:
        header = file.read(HEADER)
    if len(header) < HEADER or not any(header):
        return True
    if not header.startswith(ELF):
        return False
    (place,), (size, count) = struct.unpack_from("<Q", header, PLACE_AT), struct.unpack_from("<HH", header, SIZES_AT)
    return not place or path.stat().st_size < place + size * count


def _is_idle(directory: Path, path: Path) -> bool:
    """Tell whether no process holds Inductor's lock for this file."""
    lock = directory / "locks" / f"{path.name.partition('.')[0]}.lock"
    if not lock.exists():
        return True
    import fcntl

    with lock.open("rb+") as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # raises BlockingIOError, which is an OSError
    return True
