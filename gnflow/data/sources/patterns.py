"""Find the files that a pattern names. It is read as a shell reads it, and linked folders are entered."""

import os
from collections.abc import Iterator, Sequence
from fnmatch import fnmatchcase
from pathlib import Path, PurePath

from gnflow.errors import DataError

ANY_DEPTH = "**"


def is_pattern(name: str) -> bool:
    """Return whether a name has a wildcard."""
    return any(mark in name for mark in "*?[")


def find_matches(pattern: str, root: Path) -> list[Path]:
    """Find the files under `root` that the pattern names, sorted by their paths.

    A wildcard matches no name that begins with a dot unless its own part of the pattern does. A part that is the
    name of something is that name. Raises DataError for a folder that cannot be read and for a link to nothing.
    """
    try:
        return sorted(set(_find_below(root, PurePath(pattern).parts)), key=PurePath.as_posix)
    except OSError as error:
        raise DataError(f"{error.filename} cannot be read: {error.strerror or error}") from error


def _find_below(folder: Path, parts: Sequence[str]) -> Iterator[Path]:
    first, rest = parts[0], parts[1:]
    if first == ANY_DEPTH:
        for inside in _list_folders(folder):
            yield from _find_below(inside, rest or ("*",))
    elif not is_pattern(first) or os.path.lexists(folder / first):
        yield from _follow(folder / first, rest)
    else:
        for entry in _list_entries(folder):
            if fnmatchcase(entry.name, first) and (first.startswith(".") or not entry.name.startswith(".")):
                yield from _follow(Path(entry), rest)


def _follow(path: Path, rest: Sequence[str]) -> Iterator[Path]:
    if rest:
        if path.is_dir():
            yield from _find_below(path, rest)
    elif path.is_file():
        yield path
    elif path.is_symlink() and not path.exists():
        raise DataError(f"{path} is a link to {path.readlink()}, which is not there\nadd that file, or remove the link")


def _list_folders(top: Path) -> Iterator[Path]:
    """List `top` and every folder below it, each once, by a name without links if it has one, so that circles end."""
    seen: set[tuple[int, int]] = set()
    real, linked = [top], list[Path]()
    while real or linked:
        folder = (real or linked).pop()
        stat = folder.stat()
        if (stat.st_dev, stat.st_ino) in seen:
            continue
        seen.add((stat.st_dev, stat.st_ino))
        yield folder
        for entry in _list_entries(folder):
            if not entry.name.startswith(".") and Path(entry).is_dir():
                (linked if entry.is_symlink() else real).append(Path(entry))


def _list_entries(folder: Path) -> list[os.DirEntry[str]]:
    """List the entries of a folder, in the order of names."""
    with os.scandir(folder) as entries:
        return sorted(entries, key=lambda entry: entry.name)
