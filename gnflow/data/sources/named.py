"""Files to train on and files to hold out, which must not share their content."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from gnflow.data.sources.corpus import Corpus, Piece, split
from gnflow.data.sources.faults import combine, require_sound
from gnflow.data.sources.paths import find_matching, guard_read
from gnflow.errors import DataError


class Named(NamedTuple):
    """The files of both parts, each in the order in which they are read."""

    train: list[Path]
    held_out: list[Path]


def find_files(paths: Sequence[str], held_out: Sequence[str], root: Path, key: str = "data.source.paths") -> Named:
    """Find the files that a spec names. A held-out file is never trained on, even if `paths`, under `key`, has it."""
    kept = dict.fromkeys(find_matching(held_out, root, "data.source.held_out"))
    train = [path for path in find_matching(paths, root, key) if path not in kept]
    if not train:
        raise DataError(f"{key}: every file is held out\nname fewer files in data.source.held_out")
    return Named(train, list(kept))


def make_corpus(files: Named, read: Callable[[list[Path]], Iterator[Piece | DataError]], fraction: float) -> Corpus:
    """Make the corpus of these files. Without held-out files, the last `fraction` of the documents is held out."""
    everything = [*files.train, *files.held_out]

    def read_documents(part: list[Path]) -> Iterator[Piece]:
        return require_sound(read(part), lambda: read(everything), len(everything))

    if not files.held_out:
        return split(lambda: read_documents(files.train), fraction)
    return Corpus(lambda: read_documents(files.train), lambda: read_documents(files.held_out))


def compute_digests(files: Named, root: Path, sha256: Callable[[Path], str]) -> dict[Path, str]:
    """Compute the digest of every file. Raises DataError if a training file has the content of a held-out one."""
    found = {path: sha256(path) for part in files for path in part}
    held_out = {found[path]: path for path in files.held_out if _has_content(path)}
    twins = {path: held_out[found[path]] for path in files.train if found[path] in held_out}
    if twins:
        raise combine(_explain_twin(path, held_out, root) for path, held_out in twins.items())
    return found


def _explain_twin(path: Path, held_out: Path, root: Path) -> DataError:
    train, judged = (
        file.relative_to(root).as_posix() if file.is_relative_to(root) else str(file) for file in (path, held_out)
    )
    return DataError(
        f"data.source: `{train}` would be trained on and has the content of `{judged}`, which is held out\n"
        "remove the copies, or name them in data.source.held_out as well"
    )


def _has_content(path: Path) -> bool:
    with guard_read(path):
        return path.stat().st_size > 0
