"""Find the entry of `dvc.lock` that records a run."""

import hashlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from gnflow.spec.canonical import digest
from gnflow.workspace import Workspace

NAME = "dvc.lock"


class Entry(NamedTuple):
    """The entry of a stage in `dvc.lock`."""

    stage: str
    """`pipelines/iteration_complexity/dvc.lock:run@muon`"""
    digest: str
    """The SHA-256 of the entry as canonical JSON."""


def find_entry(directory: Path) -> Entry | None:
    """Find the stage whose outputs include the current summary of this run; None before DVC has written it."""
    summary = (directory / "summary.json").resolve()
    try:
        md5 = hashlib.md5(summary.read_bytes(), usedforsecurity=False).hexdigest()
    except FileNotFoundError:
        return None
    root = Workspace.find_for_run(directory).root
    for lock in (root / NAME, *sorted(root.glob(f"pipelines/*/{NAME}"))):
        for name, stage in _read_stages(lock):
            # Paths are relative to the folder of the lock, or to the root if the stage has a `wdir`.
            held = [(base / out["path"]).resolve() for base in (root, lock.parent) for out in _find_outputs(stage, md5)]
            if summary in held:
                return Entry(f"{lock.relative_to(root)}:{name}", digest(stage))
    return None


def _read_stages(lock: Path) -> Iterator[tuple[str, Mapping[str, object]]]:
    try:
        tree = YAML(typ="safe", pure=True).load(lock)
    except (OSError, ValueError, YAMLError):  # the lock file of another study may be damaged
        return
    stages = tree.get("stages") if isinstance(tree, Mapping) else None
    for name, stage in stages.items() if isinstance(stages, Mapping) else ():
        if isinstance(stage, Mapping):
            yield name, stage


def _find_outputs(stage: Mapping[str, object], md5: str) -> list[Mapping[str, str]]:
    outputs = stage.get("outs")
    listed = [out for out in outputs if isinstance(out, Mapping)] if isinstance(outputs, list) else []
    return [out for out in listed if out.get("md5") == md5 and "path" in out]
