"""Ask git about the code of a run: commit, branch and uncommitted changes, or the reason why it does not answer."""

import os
import subprocess
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from gnflow.secrets import hide_secrets
from gnflow.train import disk

DIFF = "dirty.diff"
LONGEST_INLINE_DIFF = 16_000  # characters; a longer one goes to a file of its own
LONGEST_DIFF = 1_000_000
MOST_UNTRACKED = 100
PATIENCE = 20  # seconds for an answer


class State(NamedTuple):
    """The answer of git: `found` is None if there is no commit, and `problem` is git's message if it did not answer."""

    found: dict[str, object] | None
    problem: str | None = None


class Unanswered(Exception):
    """The message of git when it does not answer."""


def read_state(root: Path, directory: Path) -> State:
    """Read the state of the project around `root`, and write a long diff into `directory`."""
    found: dict[str, object] = {}
    try:
        found["commit"] = _ask(root, "rev-parse", "--verify", "HEAD").strip()
        found["branch"] = _ask(root, "rev-parse", "--abbrev-ref", "HEAD").strip()
        found |= {"remote": _read_remote(root), "dirty": None}
        changed = bool(_ask(root, "status", "--porcelain", "--untracked-files=no"))
        untracked = _ask(root, "ls-files", "--others", "--exclude-standard").splitlines()
        outputs = f"{directory.name}/"
        found |= {"dirty": changed, "untracked": [name for name in untracked if outputs not in name][:MOST_UNTRACKED]}
        if changed:
            found |= _store_diff(_ask(root, "diff", "HEAD"), directory)
    except Unanswered as said:
        return State(found or None, str(said))
    return State(found)


def is_in_repository(root: Path) -> bool:
    """Return whether a directory lies in a git repository."""
    return any(os.path.lexists(place / ".git") for place in (root, *root.parents))


def _read_remote(root: Path) -> str | None:
    with suppress(Unanswered):  # many repositories have none
        return hide_secrets(_ask(root, "remote", "get-url", "origin").strip()) or None
    return None


def _store_diff(diff: str, directory: Path) -> dict[str, object]:
    diff = hide_secrets(diff)
    if len(diff) <= LONGEST_INLINE_DIFF:
        return {"diff": diff}
    rest = len(diff) - LONGEST_DIFF
    cut = f"{diff[:LONGEST_DIFF]}\n... {rest:,} more characters left out\n" if rest > 0 else diff
    disk.write(directory / DIFF, cut.encode())
    return {"diff_file": DIFF}


def _ask(root: Path, *question: str) -> str:
    command = ("git", "-C", str(root), "--no-optional-locks", *question)
    try:
        done = subprocess.run(command, capture_output=True, timeout=PATIENCE, check=False)
    except subprocess.TimeoutExpired:
        raise Unanswered(f"git {question[0]} did not answer within {PATIENCE} s") from None
    except OSError as error:
        raise Unanswered(f"git cannot be run: {error.strerror or error}") from None
    if done.returncode:
        said = " ".join(done.stderr.decode(errors="replace").split())
        raise Unanswered(hide_secrets(said) or f"git {question[0]} ended with exit code {done.returncode}")
    return done.stdout.decode(errors="replace")
