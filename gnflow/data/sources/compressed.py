"""Read the bytes of files that may be compressed with gzip or Zstandard, in bounded memory."""

import gzip
import io
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePath
from typing import BinaryIO, cast

from gnflow.data.sources.installed import require
from gnflow.errors import DataError

GZIP, ZSTANDARD = ".gz", ".zst"
CHUNK = 1 << 16


def find_ending(path: PurePath) -> str:
    """Return the ending that says what a file holds. A compressed file without a further one holds JSON lines."""
    ending = path.suffix.lower()
    return path.with_suffix("").suffix.lower() or ".jsonl" if ending in (GZIP, ZSTANDARD) else ending


def require_reader(path: PurePath) -> None:
    """Raise EnvironmentProblem if the package that decompresses a file of this name is not installed."""
    if path.suffix.lower() == ZSTANDARD:
        require("zstandard", f"a {ZSTANDARD} file", "zstd")


@contextmanager
def open_bytes(path: Path) -> Iterator[BinaryIO]:
    """Open a file for reading, decompressed if its ending says so.

    Raises DataError with the place of a fault of the compression, OSError, and EnvironmentProblem without a package.
    """
    require_reader(path)
    ending = path.suffix.lower()
    with path.open("rb") as file:
        try:
            if ending == GZIP:
                yield cast("BinaryIO", gzip.GzipFile(fileobj=file))
            elif ending == ZSTANDARD:
                yield io.BufferedReader(_Frames(file))
            else:
                yield file
        except (EOFError, zlib.error, gzip.BadGzipFile, _Damaged) as error:
            raise DataError(
                f"{path} is not a complete {'gzip' if ending == GZIP else 'Zstandard'} file (at byte {file.tell()}): "
                f"{error}\ncopy or download it again"
            ) from None


class _Damaged(Exception):
    """A Zstandard file is not what it should be."""


class _Frames(io.RawIOBase):
    """The content of the Zstandard frames of a file, which ends with the last of them or not at all."""

    def __init__(self, file: BinaryIO) -> None:
        import zstandard

        self._file, self._new, self._fault = file, zstandard.ZstdDecompressor().decompressobj, zstandard.ZstdError
        self._frame = self._new()
        self._content, self._inside = b"", False

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: "bytearray | memoryview") -> int:  # type: ignore[override]  # of typeshed's Buffer
        while not self._content:
            data = self._file.read(CHUNK)
            if not data:
                if self._inside:
                    raise _Damaged("it ends inside a frame")
                return 0
            self._content = b"".join(self._decompress(data))
        count = min(len(buffer), len(self._content))
        buffer[:count] = self._content[:count]
        self._content = self._content[count:]
        return count

    def _decompress(self, data: bytes) -> Iterator[bytes]:
        while data:
            if self._frame.eof:
                self._frame = self._new()
            try:
                yield self._frame.decompress(data)
            except self._fault as error:
                raise _Damaged(str(error)) from None
            self._inside = not self._frame.eof
            data = self._frame.unused_data if self._frame.eof else b""
