import subprocess
import sys
from pathlib import Path

import pytest
from sqlalchemy.engine import make_url

import gnflow
from gnflow.errors import EnvironmentProblem
from gnflow.track import location
from gnflow.workspace import Workspace

SOURCES = Path(gnflow.__file__).parents[1]


def test_the_store_is_the_database_of_the_project(tmp_path: Path) -> None:
    uri = location.find_tracking_uri(Workspace(tmp_path))
    assert uri == f"sqlite:///{tmp_path}/mlflow/mlflow.db"
    assert location.make_artifacts_uri(uri) == f"file://{tmp_path}/mlflow/artifacts"


def test_the_environment_overrides_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://host:5000")
    assert location.find_tracking_uri(Workspace(tmp_path)) == "http://host:5000"
    assert location.make_artifacts_uri("http://host:5000") is None


def test_without_mlflow_the_message_says_what_to_do(tmp_path: Path) -> None:
    # An interpreter that sees nothing installed, in a project whose store directory looks like a package.
    (tmp_path / "mlflow").mkdir()
    code = (
        f"import sys; sys.path.append({str(SOURCES)!r})\nfrom gnflow.track import location; location.check_available()"
    )
    done = subprocess.run([sys.executable, "-S", "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert "EnvironmentProblem: MLflow is not installed" in done.stderr
    assert "pip install 'gnflow[mlflow]'" in done.stderr
    assert "tracking: none" in done.stderr


@pytest.mark.parametrize("uri", ["./mlruns", "file:///tmp/mlruns", "/tmp/mlruns"])
def test_a_directory_of_files_is_refused_before_training(uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    with pytest.raises(EnvironmentProblem, match="no longer writes"):
        location.check_available()


@pytest.mark.parametrize("uri", ["", "http://host:5000", "sqlite:///here.db", "databricks", "postgresql://host/db"])
def test_stores_that_mlflow_takes_are_let_through(uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    location.check_available()


def test_passwords_are_not_shown() -> None:
    assert location.hide_secrets("at https://me:secret@host/x failed") == "at https://host/x failed"


def test_asking_imports_nothing_heavy() -> None:
    code = (
        "from gnflow.track import location, mirror; location.check_available(); import sys; "
        "print({'mlflow', 'torch', 'polars', 'numpy'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


@pytest.mark.parametrize("name", ["plain", "what?", "100%", "50%25", "#1", "a b", "é", "a@b:c", "[x]*"])
def test_a_store_may_lie_in_a_directory_of_any_name(name: str, tmp_path: Path) -> None:
    file = tmp_path / name / "mlflow.db"
    assert location.find_database(location.make_uri(file)) == file
    assert make_url(location.make_uri(file)).database == str(file)


@pytest.mark.parametrize(
    ("uri", "file"),
    [
        ("sqlite:////x/y%20z.db", "/x/y z.db"),
        ("sqlite:////x/y.db?timeout=10", "/x/y.db"),
        ("sqlite+pysqlite:////x/y.db", "/x/y.db"),
    ],
)
def test_a_store_that_the_user_names_is_read_as_mlflow_reads_it(uri: str, file: str) -> None:
    assert location.find_database(uri) == Path(file)


@pytest.mark.parametrize("uri", ["sqlite:///:memory:", "sqlite:///file:x?uri=true", "postgresql://host/db", "http://h"])
def test_a_store_without_a_file_has_none(uri: str) -> None:
    assert location.find_database(uri) is None


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ({}, ",".join(location.LOOPBACK)),
        ({"no_proxy": "a.example"}, ",".join(["a.example", *location.LOOPBACK])),
        ({"NO_PROXY": "a.example, localhost"}, ",".join(["a.example", *location.LOOPBACK])),
        ({"no_proxy": "*"}, "*"),
    ],
)
def test_no_proxy_is_asked_for_this_machine(before: dict[str, str], after: str) -> None:
    assert location.exempt_from_proxy(before) == {"no_proxy": after, "NO_PROXY": after}


def test_a_client_of_mlflow_asks_this_machine_directly(monkeypatch: pytest.MonkeyPatch) -> None:
    from requests.utils import get_environ_proxies

    for name in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    for name in (*location.NO_PROXY, *location.SETTINGS):
        monkeypatch.setenv(name, "")
    location.settle_environment()
    for host in ("localhost", "127.0.0.1", "127.0.1.1", "[::1]"):
        assert get_environ_proxies(f"http://{host}:5000/api", None) == {}, host
    assert get_environ_proxies("http://tracking.example:5000/api", None)
