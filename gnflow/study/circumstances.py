"""Compare the circumstances of two runs that affect their bits besides the spec: code, versions, machine, data."""

import hashlib
from collections.abc import Mapping
from pathlib import Path

from gnflow.spec.load import digest
from gnflow.train import provenance, repository
from gnflow.train.run import Run

VERSIONS = ("python", "gnflow", "torch", "numpy", "tokenizers")
MACHINE = ("device", "processor", "threads", "cuda")
UNKNOWN = "not recorded"
Changes = dict[str, tuple[str, str]]


def find_changes(there: Run, here: Path) -> Changes:
    """Return each circumstance that changed, with its old and its new value, over all sessions of the runs."""
    old, new = _read_circumstances(there.directory), _read_circumstances(here)
    theirs, ours = _list_plugins(there.directory), _list_plugins(here)
    for name in {**theirs, **ours}:
        old[name], new[name] = theirs.get(name, UNKNOWN), ours.get(name, UNKNOWN)
    old["spec"], new["spec"] = _read_digest(there.directory, "spec"), digest(there.experiment)[:12]
    return {name: (old[name], new[name]) for name in new if old[name] != new[name]}


def _read_circumstances(directory: Path) -> dict[str, str]:
    content = provenance.read(directory)
    sessions = content.get("sessions")
    entries = [entry for entry in sessions if isinstance(entry, dict)] if isinstance(sessions, list) else []
    found = {name: _join_distinct([_read_part(entry.get("versions"), name) for entry in entries]) for name in VERSIONS}
    found |= {name: _join_distinct([_read_part(entry, name) for entry in entries]) for name in MACHINE}
    digests = {name: _read_digest(directory, name) for name in ("data", "weights")}
    return found | {"commit": _describe_commit(directory, content.get("git"))} | digests


def _list_plugins(directory: Path) -> dict[str, str]:
    """Return the plug-ins of all sessions, with the name and the digest of the code of each."""
    found: dict[str, list[str]] = {}
    sessions = provenance.read(directory).get("sessions")
    for session in sessions if isinstance(sessions, list) else ():
        for plugin in session.get("plugins", ()) if isinstance(session, dict) else ():
            code = f"{plugin['file']} {plugin['version'] or ''}".strip()
            found.setdefault(f"plug-in {plugin['kind']}", []).append(f"{code} ({plugin['sha256'][:12]})")
    return {name: _join_distinct(codes) for name, codes in found.items()}


def _join_distinct(values: list[str]) -> str:
    return ", ".join(dict.fromkeys(values)) or UNKNOWN


def _read_part(entry: object, name: str) -> str:
    value = entry.get(name) if isinstance(entry, Mapping) else None
    return "none" if value is None else str(value)


def _describe_commit(directory: Path, git: object) -> str:
    """Return the commit and a digest of uncommitted changes."""
    if not isinstance(git, Mapping):
        return UNKNOWN
    commit = str(git.get("commit"))[:12]
    if git.get("dirty") is None and "dirty" in git:
        return f"{commit} with changes that git did not report"
    if not git.get("dirty"):
        return commit
    file = directory / str(git.get("diff_file", repository.DIFF))
    diff = str(git["diff"]).encode() if "diff" in git else file.read_bytes() if file.is_file() else b""
    return f"{commit} with changes {hashlib.sha256(diff).hexdigest()[:8]}"


def _read_digest(directory: Path, name: str) -> str:
    known = provenance.read_digest(directory, name)
    return known[:12] if known else UNKNOWN
