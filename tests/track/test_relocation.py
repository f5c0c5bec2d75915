"""Projects that were moved or copied, with real stores and a real server of MLflow."""

import json
import os
import shutil
import sqlite3
import urllib.parse
import urllib.request
from contextlib import closing
from pathlib import Path

import pytest
from mirroring import client, free_port, mlflow_warnings, replay, run_id
from run_directories import BEGAN, experiment, finished, steps

from gnflow.track import location, relocation, server
from gnflow.workspace import Workspace

pytestmark = mlflow_warnings

AWKWARD = "what? 100%25 #1 é"


def run_in(workspace: Workspace, name: str = "full_gn", began: float = BEGAN) -> Path:
    return finished(workspace.runs / name, experiment(), steps([4.9, 4.5, 4.1], began=began))


@pytest.fixture
def project(tmp_path: Path, empty_database: Path, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    """A project in a folder with a name of many meanings; one run is tracked."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    workspace = Workspace(tmp_path / "here" / AWKWARD)
    workspace.mlflow.mkdir(parents=True)
    (workspace.root / "dvc.yaml").touch()
    shutil.copy(empty_database, workspace.mlflow)
    replay(run_in(workspace), workspace)
    return workspace


def addresses(workspace: Workspace) -> set[str]:
    """Every artifact address in the store but those of MLflow's own experiment."""
    with closing(sqlite3.connect(workspace.mlflow / "mlflow.db")) as connection:
        return {
            str(value)
            for table, column in relocation.COLUMNS
            for (value,) in connection.execute(f"SELECT {column} FROM {table}")
            if value and str(value).startswith("file:")
        }


def listed(workspace: Workspace, directory: Path) -> list[str]:
    found = client(location.find_tracking_uri(workspace)).list_artifacts(run_id(directory))
    return sorted(file.path for file in found)


FILES = ["experiment.yaml", "plan.json", "provenance.json", "summary.json"]


def test_a_project_in_any_directory_writes_nothing_beside_itself(project: Workspace, tmp_path: Path) -> None:
    assert [path.name for path in (tmp_path / "here").iterdir()] == [AWKWARD]
    assert sorted(path.name for path in project.root.iterdir()) == ["dvc.yaml", "mlflow", "runs"]
    assert location.find_database(location.find_tracking_uri(project)) == project.mlflow / "mlflow.db"
    assert listed(project, project.runs / "full_gn") == FILES


def test_a_project_that_was_moved_finds_its_artifacts_and_writes_nothing_to_the_old_place(
    project: Workspace, tmp_path: Path
) -> None:
    moved = Workspace(project.root.rename(tmp_path / "else where?"))
    shutil.rmtree(tmp_path / "here")
    replay(run_in(moved, "second", BEGAN + 10), moved)
    assert not (tmp_path / "here").exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["else where?"]
    assert listed(moved, moved.runs / "full_gn") == listed(moved, moved.runs / "second") == FILES
    assert all(address.startswith(f"{moved.mlflow.as_uri()}/artifacts") for address in addresses(moved))


def test_the_server_of_a_moved_project_shows_its_artifacts(project: Workspace, tmp_path: Path) -> None:
    moved = Workspace(project.root.rename(tmp_path / "else#where"))
    port, run = free_port(), run_id(moved.runs / "full_gn")
    with server.serve(location.find_tracking_uri(moved), "127.0.0.1", port, tmp_path / "log"):
        base = f"http://127.0.0.1:{port}"
        with urllib.request.urlopen(f"{base}/api/2.0/mlflow/artifacts/list?run_id={run}") as answer:
            assert [file["path"] for file in json.load(answer)["files"]] == FILES
        with urllib.request.urlopen(f"{base}/get-artifact?run_uuid={run}&path=summary.json") as answer:
            assert json.load(answer)["status"] == "complete"


def test_a_copy_has_artifacts_of_its_own_and_the_original_keeps_its(project: Workspace, tmp_path: Path) -> None:
    before = addresses(project)
    copy = Workspace(Path(shutil.copytree(project.root, tmp_path / "copy")))
    assert relocation.settle(copy.mlflow / "mlflow.db")
    assert addresses(copy) == {address.replace(project.root.as_uri(), copy.root.as_uri()) for address in before}
    assert not relocation.settle(project.mlflow / "mlflow.db")
    assert addresses(project) == before


def test_only_what_lies_below_the_old_place_is_changed(project: Workspace, tmp_path: Path) -> None:
    there = client(location.find_tracking_uri(project))
    elsewhere = (tmp_path / "shared" / "artifacts").as_uri()
    (tmp_path / "shared").mkdir()
    bucket = there.create_run(there.create_experiment("bucket", "s3://bucket/artifacts")).info.artifact_uri
    shared = there.create_run(there.create_experiment("shared", elsewhere)).info.artifact_uri
    sibling = there.create_run(there.create_experiment("sibling", f"{project.mlflow.as_uri()}/artifacts2")).info
    moved = Workspace(project.root.rename(tmp_path / "moved"))
    assert relocation.settle(moved.mlflow / "mlflow.db")
    kept = client(location.find_tracking_uri(moved))
    assert kept.get_experiment_by_name("bucket").artifact_location == "s3://bucket/artifacts"
    assert kept.get_experiment_by_name("shared").artifact_location == elsewhere
    assert kept.get_run(sibling.run_id).info.artifact_uri == sibling.artifact_uri
    found = {run.info.artifact_uri for run in kept.search_runs([kept.get_experiment_by_name("bucket").experiment_id])}
    assert bucket in found
    assert shared.startswith(elsewhere)


def test_a_project_seen_by_two_names_is_not_moved(project: Workspace, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(project.root)
    before = addresses(project)
    assert not relocation.settle(tmp_path / "link" / "mlflow" / "mlflow.db")
    assert addresses(project) == before


def test_a_new_store_keeps_the_artifacts_of_every_experiment_beside_it(tmp_path: Path, monkeypatch) -> None:
    from gnflow.track import store

    monkeypatch.chdir(tmp_path)
    file = tmp_path / AWKWARD / "mlflow" / "mlflow.db"
    store.make_store(file)
    default = client(location.make_uri(file)).get_experiment("0")
    assert urllib.parse.unquote(default.artifact_location) == f"file://{file.parent}/artifacts/0"
    assert [path.name for path in tmp_path.iterdir()] == [AWKWARD]
    assert os.listdir(file.parent) == ["mlflow.db"]  # noqa: PTH208
