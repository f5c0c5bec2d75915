"""Names of files in a spec: relative to the project root (the spec lets none lead out of it), and there."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from difflib import get_close_matches
from pathlib import Path, PurePath

from gnflow.errors import DataError


def existing(name: str, root: Path, key: str) -> Path:
    """The file that `name` means. Raises DataError when there is none."""
    path = root / name
    if not path.is_file():
        raise DataError(f"{key}: there is no file `{name}` under {root}{_suggestion(path, root)}")
    return path


def matching(patterns: Sequence[str], root: Path, key: str) -> list[Path]:
    """The files that the patterns name, each once, in the order of the patterns and then of their paths."""
    found: dict[Path, None] = {}
    for pattern in patterns:
        if not any(mark in pattern for mark in "*?["):
            found[existing(pattern, root, key)] = None
            continue
        matches = sorted((path for path in root.glob(pattern) if path.is_file()), key=PurePath.as_posix)
        if not matches:
            raise DataError(f"{key}: no file matches `{pattern}` under {root}")
        found.update(dict.fromkeys(matches))
    return list(found)


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Turn the system's refusal to read a file of the user's into a DataError."""
    try:
        yield
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror or error}") from error


def _suggestion(path: Path, root: Path) -> str:
    if path.is_dir():
        return f"\nit is a directory; `{path.relative_to(root).as_posix()}/*` names the files in it"
    names = [entry.name for entry in path.parent.iterdir()] if path.parent.is_dir() else []
    near = get_close_matches(path.name, names, n=1)
    return f"\ndid you mean `{path.with_name(near[0]).relative_to(root).as_posix()}`?" if near else ""
