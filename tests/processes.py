"""Runs in processes of their own, to be stopped and disturbed."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import tiny
from mirroring import wait_until
from ruamel.yaml import YAML

from gnflow.train import provenance


def project(root: Path, microbatches: int, **training: object) -> Path:
    """A project with a spec whose steps take so many micro-batches, some milliseconds each."""
    path = tiny.write_project(root) / "tiny.yaml"
    tree = tiny.tiny(start="scratch", checkpoint_every=10_000, **training)
    YAML().dump(tree | {"optimizer": {"kind": "adamw", "microbatches": microbatches}}, path)
    return path


def directory_of(spec: Path) -> Path:
    return spec.parent / "runs" / "tiny"


@contextmanager
def running(spec: Path, **environment: str) -> Iterator[subprocess.Popen[str]]:
    """A run in its first step, or resumed."""
    journal = directory_of(spec) / "journal.jsonl"
    before = journal.stat().st_size if journal.exists() else -1
    process = subprocess.Popen(
        [sys.executable, "-m", "gnflow", "run", spec],
        env={**os.environ, **environment}, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        if before > 0:
            wait_until(lambda: len(sessions(spec)) > 1)
        else:
            wait_until((directory_of(spec) / "metrics.parquet").exists)
            time.sleep(0.3)  # into the first step
        yield process
    finally:
        process.kill()
        process.communicate()


def sessions(spec: Path) -> list[dict[str, object]]:
    found = provenance.read(directory_of(spec)).get("sessions", [])
    assert isinstance(found, list)
    return found
