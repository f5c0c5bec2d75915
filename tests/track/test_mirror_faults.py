"""Faults of the tracking server, all of them real: refused and cut connections, a killed process, a slow line."""

import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import ExitStack, closing
from pathlib import Path

import pytest
import torch
from full_disk import no_file_beyond
from mirroring import client, expected, free_port, mlflow_warnings, points, replay, run_id, train, wait_until
from run_directories import BEGAN, append, begin, end, experiment, steps
from safetensors.torch import save_file

from gnflow.errors import DiskProblem, EnvironmentProblem, Preempted
from gnflow.spec.experiment import Experiment
from gnflow.track import location, server
from gnflow.track import mirror as mirroring
from gnflow.track.mirror import Mirror
from gnflow.train.results import write_model
from gnflow.workspace import Workspace

pytestmark = mlflow_warnings


def assert_at_once(took: list[float]) -> None:
    """Less than 5 ms; more only where another process had the CPU. A single answer of a server takes longer."""
    assert sorted(took)[len(took) // 2] < 5e-3
    assert max(took) < 0.1


class Watched:
    """A run directory of its own with its mirror and what that said."""

    def __init__(self, root: Path) -> None:
        # The server is shared, so no two tests may write the same first record.
        self.records = steps([5.0 - 0.1 * index for index in range(12)], began=BEGAN + time.monotonic())
        self.said: list[str] = []
        self.workspace = Workspace(root)
        self.directory = begin(self.workspace.runs / "full_gn", experiment())
        self.mirror = Mirror(self.directory, self.workspace, report=self.said.append)

    def points(self, port: int) -> list[tuple[int, float, int]]:
        return points(f"http://127.0.0.1:{port}", run_id(self.directory))


@pytest.fixture
def run(tmp_path: Path) -> Watched:
    """To be asked for after the address of the server is set."""
    return Watched(tmp_path)


def test_a_server_that_comes_up_later_gets_everything(proxy, run: Watched, served: int) -> None:
    with run.mirror:
        took = train(run.mirror, run.records[:8])
        wait_until(lambda: run.said)
        proxy.up()
        took += train(run.mirror, run.records[8:])
        end(run.directory, run.records)
    assert_at_once(took)
    assert run.points(served) == expected(run.records)
    assert client(f"http://127.0.0.1:{served}").get_run(run_id(run.directory)).info.status == "FINISHED"
    assert len(run.said) == 1
    assert "as soon as it does" in run.said[0]


def test_a_line_cut_in_the_middle_loses_and_doubles_nothing(proxy, run: Watched, served: int) -> None:
    proxy.up()
    with run.mirror:
        took = train(run.mirror, run.records[:5])
        wait_until((run.directory / "mlflow.json").exists)
        for record in run.records[5:]:
            proxy.down()
            took += train(run.mirror, [record], pause=0.1)
            proxy.up()
            time.sleep(0.2)
    assert_at_once(took)
    assert run.points(served) == expected(run.records)
    (run.directory / "mlflow.json").unlink()
    replay(run.directory, run.workspace)
    assert run.points(served) == expected(run.records)


def test_a_slow_server_slows_nothing_down(proxy, run: Watched, served: int) -> None:
    proxy.up()
    proxy.delay = 0.2
    with run.mirror:
        took = train(run.mirror, run.records, pause=0.05)
    assert_at_once(took)
    assert run.points(served) == expected(run.records)


def test_what_is_not_sent_in_time_is_mirrored_later(proxy, run: Watched, served: int, monkeypatch) -> None:
    monkeypatch.setattr(mirroring, "FLUSH", 2.0)
    proxy.up()
    proxy.delay = 10.0  # for every request, and again for its answer
    before = time.monotonic()
    with run.mirror:
        took = train(run.mirror, run.records)
    assert_at_once(took)
    assert 2 <= time.monotonic() - before < 3
    assert run.said == [
        f"MLflow at http://127.0.0.1:{proxy.port} does not have the whole run "
        f"(not everything could be sent within 2 s); `gnflow track {run.directory}` mirrors it later."
    ]
    proxy.delay = 0.0
    replay(run.directory, run.workspace)
    assert run.points(served) == expected(run.records)


class Local:
    """A run whose store is a database file of its own."""

    def __init__(self, root: Path, database: Path) -> None:
        self.database = Path(shutil.copy(database, root))
        self.uri = f"sqlite:///{self.database}"
        self.records = steps([5.0 - 0.1 * index for index in range(12)])
        self.said: list[str] = []
        self.workspace = Workspace(root)
        self.directory = begin(self.workspace.runs / "full_gn", experiment())

    def mirror(self) -> Mirror:
        return Mirror(self.directory, self.workspace, report=self.said.append)

    def assert_has_every_point_once(self) -> None:
        assert points(self.uri, run_id(self.directory)) == expected(self.records)
        assert len(client(self.uri).search_runs(["1"])) == 1


@pytest.fixture
def local(tmp_path: Path, empty_database: Path, monkeypatch: pytest.MonkeyPatch) -> Local:
    run = Local(tmp_path, empty_database)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", run.uri)
    return run


def test_a_database_locked_by_another_connection_is_waited_for_by_nobody(local: Local) -> None:
    with closing(sqlite3.connect(local.database, isolation_level=None)) as other, local.mirror() as mirror:
        other.execute("BEGIN EXCLUSIVE")
        took = train(mirror, local.records[:8])
        wait_until(lambda: local.said)
        other.execute("ROLLBACK")
        took += train(mirror, local.records[8:])
        end(local.directory, local.records)
    assert_at_once(took)
    assert "locked" in local.said[0]
    local.assert_has_every_point_once()


@pytest.mark.faults
def test_a_database_locked_to_the_end_gets_everything_afterwards(local: Local, monkeypatch) -> None:
    monkeypatch.setattr(mirroring, "FLUSH", 1.0)
    monkeypatch.setattr(mirroring, "HURRIED_FLUSH", 1.0)
    with closing(sqlite3.connect(local.database, isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        with local.mirror() as mirror:
            took = train(mirror, local.records)
            end(local.directory, local.records)
            leaving = time.monotonic()
        assert time.monotonic() - leaving < 3
        other.execute("ROLLBACK")
    assert_at_once(took)
    assert "mirrors it later" in local.said[-1]
    mirror._thread.join()  # what it was at when it was left may still arrive
    for _ in range(2):
        replay(local.directory, local.workspace)
        local.assert_has_every_point_once()


@pytest.mark.faults
def test_a_full_store_harms_nothing_and_gets_everything_when_there_is_room(local: Local, monkeypatch) -> None:
    monkeypatch.setattr(mirroring, "FLUSH", 5.0)
    monkeypatch.setattr(mirroring, "HURRIED_FLUSH", 5.0)
    with no_file_beyond(local.database.stat().st_size), local.mirror() as mirror:
        took = train(mirror, local.records)
        wait_until(lambda: local.said)
        end(local.directory, local.records)
    assert_at_once(took)
    assert "disk I/O error" in local.said[0]
    assert "mirrors it later" in local.said[-1]
    mirror._thread.join()
    for _ in range(2):
        replay(local.directory, local.workspace)
        local.assert_has_every_point_once()


def test_being_stopped_does_not_wait_for_a_dead_server(proxy, run: Watched, monkeypatch) -> None:
    monkeypatch.setattr(mirroring, "HURRIED_FLUSH", 1.0)

    def stopped() -> None:
        with run.mirror:
            train(run.mirror, run.records)
            raise Preempted("SIGTERM")

    before = time.monotonic()
    with pytest.raises(Preempted):
        stopped()
    assert time.monotonic() - before < 2
    assert "mirrors it later" in run.said[-1]


@pytest.mark.parametrize(
    ("uri", "reason"),
    [("http://127.0.0.1:9", "refused"), ("http://no-such-host.invalid", "not known"), ("nonsense://x", "unsupported")],
)
def test_a_wrong_address_is_told_once_and_harms_nothing(tmp_path: Path, monkeypatch, uri: str, reason: str) -> None:
    monkeypatch.setattr(mirroring, "HURRIED_FLUSH", 0.5)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    run = Watched(tmp_path)
    with run.mirror:
        took = train(run.mirror, run.records)
        wait_until(lambda: run.said)
    assert_at_once(took)
    assert len(run.said) == 2
    assert all(reason in sentence for sentence in run.said)
    with pytest.raises(EnvironmentProblem, match=reason):
        replay(run.directory, run.workspace)


@pytest.mark.faults
def test_a_server_killed_and_started_again_has_every_point_once(
    empty_database: Path, tmp_path: Path, monkeypatch
) -> None:
    port = free_port()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{port}")
    run = Watched(tmp_path)
    store = f"sqlite:///{shutil.copy(empty_database, tmp_path)}"
    with ExitStack() as servers:
        process = servers.enter_context(server.serve(store, "127.0.0.1", port, tmp_path / "log"))
        with run.mirror:
            took = train(run.mirror, run.records[:4])
            wait_until((run.directory / "mlflow.json").exists)
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            took += train(run.mirror, run.records[4:8], pause=0.3)
            wait_until(lambda: run.said)
            servers.enter_context(server.serve(store, "127.0.0.1", port, tmp_path / "log"))
            took += train(run.mirror, run.records[8:])
        assert run.points(port) == expected(run.records)
    assert_at_once(took)


@pytest.mark.faults
def test_a_study_its_data_and_its_weights_pass_through_a_server(proxy, run: Watched, served: int) -> None:
    proxy.up()
    spec = Experiment.model_validate(experiment().model_dump() | {"tracking": {"kind": "mlflow", "study": "sizes"}})
    weights = run.directory / "weights"
    weights.mkdir()
    save_file({"w": torch.ones(3)}, weights / "params.safetensors")
    (weights / "state.json").write_text("{}")
    begin(run.directory, spec)
    with run.mirror:
        train(run.mirror, run.records)
        write_model(run.directory, weights)
        end(run.directory, run.records)
    replay(run.directory, run.workspace)
    there = client(f"http://127.0.0.1:{served}")
    seen = there.get_run(run_id(run.directory))
    parent = there.get_run(seen.data.tags["mlflow.parentRunId"])
    assert (parent.info.run_name, parent.info.status, parent.info.end_time) == ("sizes", "FINISHED", seen.info.end_time)
    assert [(given.dataset.name, given.dataset.digest) for given in seen.inputs.dataset_inputs] == [
        ("shakespeare/train", "d" * 36), ("shakespeare/held_out", "d" * 36),
    ]  # fmt: skip
    [output] = seen.outputs.model_outputs
    assert there.get_logged_model(output.model_id).status.value == "READY"


@pytest.fixture
def deleted(workspace: Workspace) -> Workspace:
    """A store whose experiment was deleted by somebody, with no server in between."""
    uri = location.find_tracking_uri(workspace)
    client(uri).delete_experiment(client(uri).create_experiment("gnflow", location.make_artifacts_uri(uri)))
    return workspace


def test_an_experiment_that_was_deleted_is_named_at_once_and_can_be_restored(deleted: Workspace) -> None:
    run = Watched(deleted.root)
    with run.mirror:
        train(run.mirror, run.records)
        end(run.directory, run.records)
        left = time.monotonic()
    assert time.monotonic() - left < 60  # the patience of these tests is 120 s
    assert not run.mirror._thread.is_alive()
    [said] = run.said[-1:]
    assert "does not have the whole run (the experiment `gnflow` was deleted in MLflow" in said
    assert "mlflow experiments restore --experiment-id 1" in said
    assert "give `tracking.experiment` another name" in said
    with pytest.raises(EnvironmentProblem, match="the experiment `gnflow` was deleted"):
        replay(run.directory, deleted)
    uri = location.find_tracking_uri(deleted)
    command = said.split("`")[3]
    assert (
        subprocess.run(["bash", "-c", f"{command.replace(' mlflow ', f' {sys.executable} -m mlflow ')}"]).returncode
        == 0
    )
    assert points(uri, replay(run.directory, deleted)) == expected(run.records)


def test_an_attempt_that_fails_at_the_end_is_not_repeated_for_long(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{free_port()}")
    monkeypatch.setattr(mirroring, "HURRIED_FLUSH", 1.0)
    run = Watched(workspace.root)
    append(run.directory, run.records)
    with run.mirror:
        run.mirror.hear(run.records[0])  # the first attempt is the one at the end
        left = time.monotonic()
    assert time.monotonic() - left < 60  # FLUSH is 120 s here
    assert "does not have the whole run" in run.said[-1]


def test_a_run_whose_directory_is_gone_has_failed_and_holds_nobody_up(workspace: Workspace) -> None:
    run = Watched(workspace.root)
    known: list[str] = []

    def lose() -> None:
        with run.mirror:
            train(run.mirror, run.records[:4])
            wait_until((run.directory / "mlflow.json").exists)
            known.append(run_id(run.directory))
            store = client(location.find_tracking_uri(workspace))
            wait_until(lambda: bool(store.get_run(known[0]).data.metrics))
            shutil.rmtree(run.directory)
            raise DiskProblem("runs/full_gn was removed")

    with pytest.raises(DiskProblem):
        lose()
    assert not run.said
    assert client(location.find_tracking_uri(workspace)).get_run(known[0]).info.status == "FAILED"
    assert not run.directory.exists()
