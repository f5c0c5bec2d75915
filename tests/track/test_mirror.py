import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from mirroring import client, expected, mlflow_warnings, points, replay, run_id, train, wait_until
from run_directories import BEGAN, append, begin, end, experiment, finished, steps

from gnflow.errors import Diverged, EnvironmentProblem, Preempted
from gnflow.track import location, store
from gnflow.track.mirror import Mirror
from gnflow.workspace import Workspace

pytestmark = mlflow_warnings

LOSSES = [4.9, 4.5, 4.1, 3.8, 3.6, 3.5]


@pytest.fixture
def run(workspace: Workspace) -> Path:
    """A run directory before its first step."""
    return begin(workspace.runs / "full_gn", experiment())


@pytest.fixture
def said() -> list[str]:
    return []


@pytest.fixture
def uri(workspace: Workspace) -> str:
    return location.find_tracking_uri(workspace)


def mirror(run: Path, workspace: Workspace, said: list[str]) -> Mirror:
    return Mirror(run, workspace, report=said.append)


def stop_with(error: type[BaseException], watching: Mirror, losses: list[float]) -> None:
    with watching:
        train(watching, steps(losses))
        wait_until((watching.directory / "mlflow.json").exists)
        raise error


def test_every_point_arrives_with_the_time_of_its_record(run, workspace, uri, said) -> None:
    with mirror(run, workspace, said) as watching:
        train(watching, steps(LOSSES))
        end(run, steps(LOSSES))
    for key in ("loss/held_out", "tokens/search", "loss/train"):
        assert points(uri, run_id(run), key) == expected(steps(LOSSES), key)
    assert said == []


def test_points_appear_while_the_run_goes_on(run, workspace, uri, said) -> None:
    with mirror(run, workspace, said) as watching:
        train(watching, steps(LOSSES)[:3])
        wait_until((run / "mlflow.json").exists)
        wait_until(lambda: len(points(uri, run_id(run))) == 3)
        assert client(uri).get_run(run_id(run)).info.status == "RUNNING"
        train(watching, steps(LOSSES)[3:])
        wait_until(lambda: len(points(uri, run_id(run))) == 6)


def test_the_mlflow_run_says_what_was_run(run, workspace, uri, said) -> None:
    with mirror(run, workspace, said) as watching:
        train(watching, steps(LOSSES))
        end(run, steps(LOSSES))
    seen = client(uri).get_run(run_id(run))
    assert seen.info.run_name == "full_gn"
    assert seen.info.status == "FINISHED"
    assert seen.info.start_time == round(BEGAN * 1000)
    assert seen.info.end_time == round(steps(LOSSES)[-1].time * 1000)
    assert seen.data.params["optimizer.inner.learning_rate"] == "0.02"
    assert seen.data.tags["gnflow.data_digest"] == "d" * 64
    assert client(uri).get_experiment(seen.info.experiment_id).name == "gnflow"
    files = {file.path for file in client(uri).list_artifacts(run_id(run))}
    assert files == {"experiment.yaml", "plan.json", "provenance.json", "summary.json"}
    assert (workspace.mlflow / "artifacts" / run_id(run) / "artifacts" / "summary.json").is_file()


def sheet(run: Path, step: int, content: bytes) -> None:
    (run / "samples").mkdir(exist_ok=True)
    (run / "samples" / f"step_{step:08d}.png").write_bytes(content)
    (run / "samples" / f"step_{step:08d}.json").write_text(json.dumps({"step": step}))
    (run / "samples" / ".step_00000009.png.partial").write_bytes(content[:1])


def test_sheets_of_samples_are_there_as_soon_as_they_are_made_and_once(run, workspace, uri, said) -> None:
    def names() -> list[str]:
        return [file.path for file in client(uri).list_artifacts(run_id(run), "samples")]

    first = ["samples/step_00000002.json", "samples/step_00000002.png"]
    both = sorted([*first, "samples/step_00000005.json", "samples/step_00000005.png"])
    with mirror(run, workspace, said) as watching:
        sheet(run, 2, b"two")
        train(watching, steps(LOSSES)[:3])
        wait_until((run / "mlflow.json").exists)
        wait_until(lambda: sorted(names()) == first)
        sheet(run, 5, b"five")
        train(watching, steps(LOSSES)[3:])
        wait_until(lambda: sorted(names()) == both)
        end(run, steps(LOSSES))
    (run / "mlflow.json").unlink()
    replay(run, workspace)
    assert sorted(names()) == both
    kept = workspace.mlflow / "artifacts" / run_id(run) / "artifacts" / "samples"
    assert [(kept / f"step_{step:08d}.png").read_bytes() for step in (2, 5)] == [b"two", b"five"]


def test_the_machine_is_measured(run, workspace, uri, said) -> None:
    with mirror(run, workspace, said) as watching:
        train(watching, steps(LOSSES))
    measured = client(uri).get_run(run_id(run)).data.metrics
    assert 0 < measured["system/system_memory_usage_percentage"] < 100
    assert 0 <= measured["system/cpu_utilization_percentage"] <= 100


def test_nothing_leaks_into_the_process_or_the_directory(run, workspace, said, tmp_path, monkeypatch) -> None:
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    with mirror(run, workspace, said) as watching:
        train(watching, steps(LOSSES))
        wait_until((run / "mlflow.json").exists)
        import mlflow

        assert mlflow.active_run() is None
    assert list(Path.cwd().iterdir()) == []


def test_a_restart_continues_the_same_run_without_double_points(run, workspace, uri, said) -> None:
    end(run, steps(LOSSES)[:3], "preempted")
    with pytest.raises(Preempted):
        stop_with(Preempted, mirror(run, workspace, said), LOSSES[:3])
    first = run_id(run)
    assert client(uri).get_run(first).info.status == "KILLED"
    with mirror(run, workspace, said) as watching:
        train(watching, steps(LOSSES)[3:])
        wait_until(lambda: client(uri).get_run(first).info.status == "RUNNING")
        end(run, steps(LOSSES))
    (run / "mlflow.json").unlink()
    assert replay(run, workspace) == run_id(run) == first
    assert client(uri).get_run(first).info.status == "FINISHED"
    assert points(uri, first) == expected(steps(LOSSES))


def test_the_run_is_found_again_when_its_id_is_lost(run, workspace, uri) -> None:
    append(run, steps(LOSSES))
    first = replay(run, workspace)
    (run / "mlflow.json").unlink()
    moved = shutil.move(run, workspace.runs / "renamed")
    assert replay(moved, workspace) == first
    assert points(uri, first) == expected(steps(LOSSES))  # sent twice, there once


def test_another_run_in_the_same_directory_is_another_mlflow_run(run, workspace, uri) -> None:
    append(run, steps(LOSSES))
    first = replay(run, workspace)
    (run / "journal.jsonl").unlink()
    append(run, steps(LOSSES, began=BEGAN + 1000))
    assert replay(run, workspace) != first
    assert points(uri, first) == expected(steps(LOSSES))


@pytest.mark.parametrize("away", ["store", "run"])
def test_a_run_that_the_store_has_lost_is_mirrored_again(run, workspace, uri, empty_database, away) -> None:
    append(run, steps(LOSSES))
    first = replay(run, workspace)
    if away == "store":
        shutil.copy(empty_database, workspace.mlflow)
    else:
        client(uri).delete_run(first)
    second = replay(run, workspace)
    assert second != first
    assert points(uri, second) == expected(steps(LOSSES))


@pytest.mark.parametrize(
    ("error", "status"), [(Diverged, "FAILED"), (ValueError, "FAILED"), (KeyboardInterrupt, "KILLED")]
)
def test_the_status_tells_how_training_ended(run, workspace, uri, said, error, status) -> None:
    with pytest.raises(error):
        stop_with(error, mirror(run, workspace, said), LOSSES)
    assert client(uri).get_run(run_id(run)).info.status == status


def test_a_run_that_ends_before_its_first_record_waits_for_nothing(run, workspace, said) -> None:
    before = time.monotonic()
    with mirror(run, workspace, said):
        pass
    assert time.monotonic() - before < 1
    assert said == []
    assert not (run / "mlflow.json").exists()


def test_telling_the_mirror_takes_no_time(run, workspace, said) -> None:
    with mirror(run, workspace, said) as watching:
        took = sorted(train(watching, steps([4.0] * 2000), pause=0.001))
    assert took[len(took) // 2] < 1e-4
    assert took[-20] < 5e-3  # the rest may have lost the CPU to another process


def test_a_torn_last_line_is_not_sent_until_it_is_whole(run, workspace, uri, said) -> None:
    append(run, steps(LOSSES))
    whole = (run / "journal.jsonl").read_bytes()
    (run / "journal.jsonl").write_bytes(whole[:-40])
    replay(run, workspace)
    assert points(uri, run_id(run)) == expected(steps(LOSSES)[:-1])
    (run / "journal.jsonl").write_bytes(whole)
    replay(run, workspace)
    assert points(uri, run_id(run)) == expected(steps(LOSSES))


def test_nothing_to_replay_is_said(run, workspace) -> None:
    with pytest.raises(EnvironmentProblem, match="no record yet"):
        replay(run, workspace)


def test_mlflow_is_loaded_only_after_the_first_step_and_keeps_quiet(run, workspace) -> None:
    code = f"""
import sys, time
from pathlib import Path
sys.path.insert(0, {str(Path(__file__).parents[1])!r})
from run_directories import append, steps
from gnflow.track import mirror as mirroring
from gnflow.track.mirror import Mirror
from gnflow.workspace import Workspace
mirroring.FLUSH = 120
run = Path({str(run)!r})
with Mirror(run, Workspace(Path({str(workspace.root)!r}))) as mirror:
    append(run, steps([4.9]))
    mirror.hear(steps([4.9])[0])
    time.sleep(1)
    assert "mlflow" not in sys.modules, "before the first step"
    append(run, steps([4.9, 4.5])[1:])
    mirror.hear(steps([4.9, 4.5])[1])
assert "mlflow" in sys.modules
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert (run / "mlflow.json").exists()


def test_a_store_whose_making_was_killed_is_made_again(tmp_path: Path) -> None:
    file = tmp_path / "mlflow" / "mlflow.db"
    code = f"from pathlib import Path; from gnflow.track import store; store.make_store(Path({str(file)!r}))"
    making = subprocess.Popen([sys.executable, "-c", code])
    partial = file.with_name(".mlflow.db.partial")
    while making.poll() is None and not (partial.exists() and partial.stat().st_size):
        time.sleep(0.005)
    making.kill()
    assert making.wait() == -signal.SIGKILL
    assert not file.exists()
    assert len(store.open_client(f"sqlite:///{file}").search_experiments()) == 1
    assert {path.name for path in file.parent.iterdir()} == {"mlflow.db"}


@pytest.mark.faults
def test_two_first_runs_at_once_share_a_new_store(tmp_path: Path) -> None:
    (tmp_path / ".git").mkdir()
    runs = [
        finished(tmp_path / "runs" / name, experiment(), steps(LOSSES, began=BEGAN + index))
        for index, name in enumerate(["one", "two"])
    ]
    code = f"""
import sys, time
from pathlib import Path
sys.path.insert(0, {str(Path(__file__).parents[1])!r})
from run_directories import steps
from gnflow.track import mirror as mirroring
from gnflow.track.mirror import Mirror
from gnflow.workspace import Workspace
mirroring.FLUSH = 120
run = Path(sys.argv[1])
with Mirror(run, Workspace.find(run)) as mirror:
    for record in steps([4.9, 4.5]):
        mirror.hear(record)
"""
    both = [subprocess.Popen([sys.executable, "-c", code, str(run)], stderr=subprocess.PIPE, text=True) for run in runs]
    said = [process.communicate()[1] for process in both]
    uri = location.find_tracking_uri(Workspace(tmp_path))
    for run in runs:
        assert (run / "mlflow.json").exists(), said
        assert points(uri, run_id(run)) == expected(
            steps(LOSSES, began=json.loads((run / "journal.jsonl").read_text().splitlines()[0])["time"])
        ), said
    assert len(client(uri).search_experiments(filter_string="name = 'gnflow'")) == 1
