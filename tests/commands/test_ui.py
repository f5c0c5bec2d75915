import json
import os
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from mirroring import free_port

from gnflow.commands.ui import serve_ui
from gnflow.errors import EnvironmentProblem
from gnflow.track import hosts, server

LOOPBACK = "0100007F"  # 127.0.0.1 to the kernel


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "dvc.yaml").touch()
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_taken_port_is_an_error_that_says_what_to_do(project: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(EnvironmentProblem, match=f"127.0.0.1:{port}.*--port {port + 1}") as caught:
            serve_ui(port=port)
    assert caught.value.exit_code == 7
    assert not (project / "mlflow").exists()


def test_a_remote_store_has_its_own_ui(project: Path, monkeypatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "https://me:secret@host:5000")
    assert serve_ui() == 0
    out = capsys.readouterr().out
    assert "https://host:5000" in out
    assert "secret" not in out


def test_without_mlflow_it_says_how_to_install_it(project: Path) -> None:
    code = (
        f"import sys; sys.path.append({str(Path(server.__file__).parents[2])!r})\n"
        "from gnflow.commands.ui import serve_ui\nserve_ui()"
    )
    done = subprocess.run([sys.executable, "-S", "-c", code], capture_output=True, text=True, check=False)
    assert "EnvironmentProblem: MLflow is not installed" in done.stderr


def test_a_server_that_cannot_start_is_told_with_its_reason(project: Path) -> None:
    log = project / "log"
    with (
        pytest.raises(EnvironmentProblem, match=str(log)),
        server.serve("nonsense://x", "127.0.0.1", free_port(), log),
    ):
        pass


@pytest.mark.parametrize(
    ("host", "address"),
    [
        ("127.0.0.1", "http://127.0.0.1:5"),
        ("0.0.0.0", "http://127.0.0.1:5"),
        ("::", "http://[::1]:5"),
        ("a", "http://a:5"),
    ],
)
def test_the_address_can_be_opened_on_this_machine(host: str, address: str) -> None:
    assert server.make_address(host, 5) == address


class Started:
    """`gnflow ui` in a process of its own, after it has printed the address."""

    def __init__(self, port: int, *options: str, lines: int = 2, **environment: str) -> None:
        self.port = port
        command = [sys.executable, "-m", "gnflow", "ui", "--port", str(port), *options]
        env = {**os.environ, **environment}
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=env)
        assert self.process.stdout
        self.printed = [self.process.stdout.readline() for _ in range(lines)]

    def children(self) -> list[int]:
        tasks = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        return [int(task) for task in tasks]

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        assert self.process.stdout
        self.process.stdout.close()


def listening(port: int) -> set[str]:
    """The addresses that are listened on, as the kernel writes them; of both families."""
    rows = [line.split() for name in ("tcp", "tcp6") for line in Path(f"/proc/net/{name}").read_text().splitlines()[1:]]
    return {row[1].partition(":")[0] for row in rows if row[3] == "0A" and row[1].endswith(f":{port:04X}")}


@pytest.fixture
def started(project: Path) -> Iterator[Started]:
    started = Started(free_port())
    yield started
    started.close()


def test_it_serves_until_it_is_stopped_and_leaves_no_process(started: Started, project: Path) -> None:
    assert started.printed[1] == f"MLflow UI: http://127.0.0.1:{started.port}  (Ctrl-C stops it)\n"
    with urllib.request.urlopen(
        f"http://127.0.0.1:{started.port}/api/2.0/mlflow/experiments/search?max_results=5"
    ) as answer:
        assert json.load(answer)["experiments"][0]["name"] == "Default"
    with urllib.request.urlopen(f"http://127.0.0.1:{started.port}/ajax-api/3.0/mlflow/ui-telemetry") as answer:
        assert json.load(answer)["disable_ui_telemetry"] is True
    assert listening(started.port) == {LOOPBACK}
    [server_process] = started.children()
    started.process.send_signal(signal.SIGTERM)
    assert started.process.wait(20) == 0
    with pytest.raises(ProcessLookupError):
        os.killpg(server_process, 0)
    socket.create_server(("127.0.0.1", started.port)).close()
    assert sorted(path.name for path in project.iterdir()) == ["dvc.yaml", "mlflow"]
    assert sorted(path.name for path in (project / "mlflow").iterdir()) == ["mlflow.db", "ui.log"]


NOBODY = "http://127.0.0.1:9"  # a proxy that is not there
PROXIES = {"http_proxy": NOBODY, "https_proxy": NOBODY, "all_proxy": NOBODY, "no_proxy": "example.com"}


def asked(port: int, path: str, data: bytes | None = None, **headers: str) -> int:
    """The status that the server answers with."""
    request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", data, headers)
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code


@pytest.mark.faults
def test_every_address_answers_to_the_names_of_its_machine_and_to_those_allowed_whatever_proxy_is_set(
    project: Path,
) -> None:
    options = ("--host", "0.0.0.0", "--allow", "node17.cluster.example")
    started = Started(free_port(), *options, lines=3, **PROXIES)
    try:
        assert "--allow NAME adds a name" in started.printed[2]
        search = "/api/2.0/mlflow/experiments/search?max_results=5"
        for name in (socket.gethostname(), "node17.cluster.example", "localhost"):
            host = f"{name}:{started.port}"
            assert asked(started.port, search, Host=host) == 200, name
            page = {"Host": host, "Origin": f"http://{host}", "Content-Type": "application/json"}
            assert asked(started.port, "/ajax-api/2.0/mlflow/runs/search", b'{"experiment_ids": ["0"]}', **page) == 200
        assert asked(started.port, search, Host=f"node18.cluster.example:{started.port}") == 403
        stranger = {"Origin": "http://evil.example", "Content-Type": "application/json"}
        assert asked(started.port, "/ajax-api/2.0/mlflow/runs/search", b"{}", **stranger) == 403
        [process] = started.children()
        started.process.send_signal(signal.SIGHUP)  # the session was closed
        assert started.process.wait(20) == 0
        with pytest.raises(ProcessLookupError):
            os.killpg(process, 0)
    finally:
        started.close()


def test_on_loopback_mlflow_decides_which_names_it_answers_to() -> None:
    assert hosts.make_settings("127.0.0.1") == hosts.make_settings("::1") == hosts.make_settings("localhost") == {}
    assert hosts.list_names("127.0.0.1") == ["localhost", "127.0.0.1", "[::1]"]
    assert "node17.example" in hosts.list_names("127.0.0.1", ["node17.example"])
    assert "[::1],[[]::1]:*" in hosts.make_settings("::")["MLFLOW_SERVER_ALLOWED_HOSTS"]
