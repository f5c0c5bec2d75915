import shutil
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from mirroring import free_port

from gnflow.track import server
from gnflow.workspace import Workspace


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with its tables made (seconds of work), to be copied."""
    from mlflow import MlflowClient

    file = tmp_path_factory.mktemp("store") / "mlflow.db"
    MlflowClient(f"sqlite:///{file}").search_experiments()
    return file


@pytest.fixture
def workspace(tmp_path: Path, empty_database: Path, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    """A project with a local store that is ready."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    workspace = Workspace(tmp_path)
    workspace.mlflow.mkdir()
    shutil.copy(empty_database, workspace.mlflow)
    return workspace


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a busy machine MLflow takes its time; a test that is about deadlines sets its own."""
    monkeypatch.setattr("gnflow.track.mirror.FLUSH", 120.0)
    monkeypatch.setattr("gnflow.track.mirror.HURRIED_FLUSH", 120.0)


class Proxy:
    """A way to the server that can be cut, or made slow."""

    def __init__(self, port: int) -> None:
        self.port = free_port()
        self.delay = 0.0
        self.accepted = 0
        self._to = port
        self._listener: socket.socket | None = None
        self._open: set[socket.socket] = set()

    def up(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", self.port))
        threading.Thread(target=self._serve, args=[self._listener], daemon=True).start()

    def down(self) -> None:
        """New connections are refused, open ones broken off."""
        for end in (self._listener, *list(self._open)):
            if end:
                with suppress(OSError):
                    end.shutdown(socket.SHUT_RDWR)
                end.close()
        self._listener = None

    def _serve(self, listener: socket.socket) -> None:
        with suppress(OSError):
            while True:
                near = listener.accept()[0]
                self.accepted += 1
                try:
                    far = socket.create_connection(("127.0.0.1", self._to))
                except OSError:
                    near.close()
                    continue
                self._open |= {near, far}
                for ends in ((near, far), (far, near)):
                    threading.Thread(target=self._pass_on, args=ends, daemon=True).start()

    def _pass_on(self, source: socket.socket, sink: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(1 << 16):
                time.sleep(self.delay)
                sink.sendall(data)
        for end in (source, sink):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()
            self._open.discard(end)


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory, empty_database: Path) -> Iterator[int]:
    """The port of a real MLflow server."""
    root = tmp_path_factory.mktemp("served")
    shutil.copy(empty_database, root)
    port = free_port()
    with server.serve(f"sqlite:///{root / 'mlflow.db'}", "127.0.0.1", port, root / "log"):
        yield port


@pytest.fixture
def proxy(served: int, monkeypatch: pytest.MonkeyPatch) -> Iterator[Proxy]:
    """The server behind a proxy that is not up yet, and the environment pointing at the proxy."""
    proxy = Proxy(served)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{proxy.port}")
    yield proxy
    proxy.down()
