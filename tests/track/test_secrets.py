"""Secrets planted around a run are in no file that it leaves, in nothing that it says, and not in MLflow."""

import subprocess
import sys
from pathlib import Path

import pytest
import tiny
from mirroring import client, mlflow_warnings, run_id
from ruamel.yaml import YAML

from gnflow.commands.run import run
from gnflow.study.comparison import compare
from gnflow.study.report.provenance import make_provenance
from gnflow.train.run import Run

pytestmark = mlflow_warnings

PLANTED = "planted-password", "planted-user", "planted-token-of-the-environment", "hf_plantedplantedplanted1"


def git(root: Path, *command: str) -> None:
    subprocess.run(["git", "-C", root, "-c", "user.name=A", "-c", "user.email=a@b.c", *command], check=True)


@pytest.fixture
def spec(tmp_path: Path) -> Path:
    """A spec in a repository whose remote has a password, and whose uncommitted change has tokens."""
    root = tiny.write_project(tmp_path / "project")
    tree = tiny.tiny(steps=2, target={"at_most": 100.0}) | {"tracking": "mlflow"}
    YAML().dump(tree, root / "tiny.yaml")
    (root / "notes.py").write_text("x = 1\n")
    git(root, "init", "--quiet")
    git(root, "add", "notes.py")
    git(root, "commit", "--quiet", "-m", "first")
    git(root, "remote", "add", "origin", f"https://{PLANTED[1]}:{PLANTED[0]}@example.org/project.git")
    (root / "notes.py").write_text(f"x = '{PLANTED[2]}', '{PLANTED[3]}'\n")
    return root / "tiny.yaml"


def test_nothing_that_a_run_leaves_or_says_holds_a_secret(
    spec: Path,
    served: int,
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://{PLANTED[1]}:{PLANTED[0]}@127.0.0.1:{served}")
    monkeypatch.setenv("GNFLOW_TOKEN", PLANTED[2])
    monkeypatch.setattr(sys, "orig_argv", ["gnflow", "run", f"https://a:{PLANTED[0]}@host", PLANTED[2], PLANTED[3]])
    assert run(spec) == 0
    root = spec.parent
    directory = root / "runs" / "tiny"
    shown = "".join(make_provenance(compare([Run.load(directory)], [100.0])))

    stores = list(tmp_path_factory.getbasetemp().glob("served*"))
    files = [path for place in (root, *stores) for path in place.rglob("*") if path.is_file()]
    own = {root / "notes.py", root / ".git" / "config"}
    assert {path for path in files for secret in PLANTED if secret.encode() in path.read_bytes()} == own
    said = capfd.readouterr()
    assert not [secret for secret in PLANTED if secret in said.out + said.err + shown]

    # All of it was written down, but for the secrets.
    assert {path.name for path in files} >= {"mlflow.db", "journal.jsonl", "mlflow.json"}
    stored = (directory / "provenance.json").read_text()
    assert '"MLFLOW_TRACKING_URI": "http://127.0.0.1:' in stored
    assert '"GNFLOW_TOKEN": "***"' in stored
    assert '"remote": "https://example.org/project.git"' in stored
    assert "+x = '***', '***'" in stored
    assert '"command": "gnflow run https://host' in stored
    there = client(f"http://127.0.0.1:{served}").get_run(run_id(directory))
    assert there.data.tags["gnflow.git_dirty"] == "true"
    assert Run.load(directory).summary["status"] == "complete"
