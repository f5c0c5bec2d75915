"""Check that all processes of a run see the same run directory, as those on several machines must."""

import os
import socket
import time
from pathlib import Path

from gnflow.crew import Crew
from gnflow.errors import EnvironmentProblem
from gnflow.train import disk

TOKEN = ".shared"
PATIENCE = 10.0
"""Seconds for which a network file system may hide a new file."""


def require_shared(crew: Crew, directory: Path) -> None:
    """Raise EnvironmentProblem if a process does not see a file that process 0 has written to the run directory."""
    if crew.size == 1:
        return
    path = directory / TOKEN
    token = crew.tell(crew.run_first(lambda: _write(path), lambda: ""))
    seen = crew.collect(None if _find(path, token) else f"{socket.gethostname()}:{directory.resolve()}")
    crew.lead(lambda: path.unlink(missing_ok=True))
    for rank, place in enumerate(seen):
        if place is not None:
            raise EnvironmentProblem(
                f"process {rank} of {crew.size} does not see the run directory of process 0: it looks at {place}. "
                "All machines must share `runs/` and `data/`; give a shared directory with --run-dir"
            )


def _write(path: Path) -> str:
    token = os.urandom(16).hex()
    disk.write(path, token.encode())
    return token


def _find(path: Path, token: str) -> bool:
    """Wait until the file has this content. Return whether it came."""
    until = time.monotonic() + PATIENCE
    while True:
        if path.is_file() and path.read_text() == token:
            return True
        if time.monotonic() > until:
            return False
        time.sleep(0.1)
