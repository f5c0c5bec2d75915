"""Find the files that a spec names, relative to the project root. The spec allows no name that leads out of it."""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from difflib import get_close_matches
from pathlib import Path

from gnflow.data.sources.faults import combine
from gnflow.data.sources.patterns import find_matches, is_pattern
from gnflow.errors import DataError


def find_existing(name: str, root: Path, key: str) -> Path:
    """Find the file that `name` means. Raises DataError if there is none."""
    path = root / name
    if not path.is_file():
        raise DataError(f"{key}: there is no file `{name}` under {root}{_suggest(path, root)}")
    return path


def find_matching(patterns: Sequence[str], root: Path, key: str) -> list[Path]:
    """Find the files that the patterns name, each once, in the order of the patterns and then of their paths.

    A name that exists is no pattern. Raises one DataError for all patterns that name nothing.
    """
    found: dict[Path, None] = {}
    problems: list[DataError] = []
    for pattern in patterns:
        try:
            found.update(dict.fromkeys(_find_named(pattern, root, key)))
        except DataError as problem:
            problems.append(problem)
    if problems:
        raise combine(problems)
    return list(found)


def _find_named(pattern: str, root: Path, key: str) -> list[Path]:
    if not is_pattern(pattern) or os.path.lexists(root / pattern):
        return [find_existing(pattern, root, key)]
    if found := find_matches(pattern, root):
        return found
    raise DataError(f"{key}: no file matches `{pattern}` under {root}")


@contextmanager
def guard_read(path: Path) -> Iterator[None]:
    """Turn the system's refusal to read a file of the user's into a DataError."""
    try:
        yield
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}") from error


def _suggest(path: Path, root: Path) -> str:
    if path.is_symlink() and not path.exists():
        return f"\nit is a link to {path.readlink()}, which is not there"
    if path.is_dir():
        return f"\nit is a directory; `{path.relative_to(root).as_posix()}/*` names the files in it"
    names = [entry.name for entry in path.parent.iterdir()] if path.parent.is_dir() else []
    near = get_close_matches(path.name, names, n=1)
    return f"\ndid you mean `{path.with_name(near[0]).relative_to(root).as_posix()}`?" if near else ""
