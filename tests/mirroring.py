"""What the tests of the mirror share: a training run without the training, and a look into the store."""

import json
import socket
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from run_directories import append

from gnflow.track.mirror import Mirror
from gnflow.track.opening import refill
from gnflow.train.journal import Step
from gnflow.workspace import Workspace

# MLflow 3.17 uses what SQLAlchemy 2.1 deprecates.
mlflow_warnings = pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy is deprecated")


def train(mirror: Mirror, records: Sequence[Step], pause: float = 0.0) -> list[float]:
    """Write records as training does; the seconds that telling the mirror took, each time."""
    took = []
    for record in records:
        append(mirror.directory, [record])
        before = time.perf_counter()
        mirror.hear(record)
        took.append(time.perf_counter() - before)
        time.sleep(pause)
    return took


def replay(directory: Path, workspace: Workspace) -> str:
    """Refill MLflow, and return the id of the run there."""
    return refill(directory, workspace).place.removeprefix("run ")


def client(uri: str) -> Any:
    from mlflow import MlflowClient  # not before a test needs it

    return MlflowClient(uri)


def run_id(directory: Path) -> str:
    return str(json.loads((directory / "mlflow.json").read_text())["run_id"])


def points(uri: str, run: str, key: str = "loss/held_out") -> list[tuple[int, float, int]]:
    """(step, value, milliseconds) of every point, by step."""
    return sorted((m.step, m.value, m.timestamp) for m in client(uri).get_metric_history(run, key))


def expected(records: Sequence[Step], key: str = "loss/held_out") -> list[tuple[int, float, int]]:
    return [(r.step, r.values[key], round(r.time * 1000)) for r in records if key in r.values]


def wait_until(condition: Any, seconds: float = 60.0) -> None:
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, f"not so after {seconds} s"
        time.sleep(0.05)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
