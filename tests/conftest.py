"""The same surroundings for every test: one thread, no telemetry, nothing taken from the user's environment."""

import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

# Before torch, mlflow or dvc is imported; subprocesses of the tests inherit it.
os.environ.update(
    OMP_NUM_THREADS="1",  # pytest-xdist already takes every core
    TORCHINDUCTOR_CACHE_DIR=str(Path(__file__).parents[1] / ".gnflow" / "tests"),  # a second run compiles less
    TORCHINDUCTOR_COMPILE_THREADS="1",  # compile in the process itself, not in a pool of one more per core
    MLFLOW_DISABLE_TELEMETRY="true",
    DO_NOT_TRACK="true",
    DVC_NO_ANALYTICS="true",
    HF_HUB_OFFLINE="1",
    NO_COLOR="1",
    COLUMNS="120",
)
for name in [name for name in os.environ if name.startswith(("GNFLOW_", "MLFLOW_TRACKING", "MLFLOW_EXPERIMENT"))]:
    del os.environ[name]
# A suite started with nohup or in the background inherits these two ignored, and so would every run that it stops.
for number, usual in ((signal.SIGHUP, signal.SIG_DFL), (signal.SIGINT, signal.default_int_handler)):
    if signal.getsignal(number) == signal.SIG_IGN:
        signal.signal(number, usual)


@pytest.fixture(autouse=True)
def seeded() -> None:
    """A test that draws random numbers draws the same ones every time, alone or in any order."""
    if torch := sys.modules.get("torch"):
        torch.manual_seed(0)


@pytest.fixture(autouse=True)
def default_dtype_stays() -> Iterator[None]:
    """No test leaves float64 behind for the next."""
    yield
    if torch := sys.modules.get("torch"):
        assert torch.get_default_dtype() is torch.float32


@pytest.fixture(autouse=True)
def tracking_address_stays() -> Iterator[None]:
    """No test leaves the address of its MLflow store in the environment for the next."""
    before = os.environ.get("MLFLOW_TRACKING_URI")
    yield
    if os.environ.get("MLFLOW_TRACKING_URI") != before and (mlflow := sys.modules.get("mlflow")):
        mlflow.set_tracking_uri(before)


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project whose run is finished; copy it before changing it."""
    import tiny

    from gnflow.train.loop import run
    from gnflow.workspace import Workspace

    root = tiny.write_project(tmp_path_factory.mktemp("finished") / "project")
    run(tiny.experiment(), Workspace(root))
    return root
