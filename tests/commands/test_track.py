"""`gnflow track` on a real store: what is sent twice is there once, and a lost store comes back."""

import hashlib
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from mirroring import client, expected, mlflow_warnings, points, run_id
from run_directories import BEGAN, experiment, finished, steps

from gnflow.commands.track import track
from gnflow.compiler import build
from gnflow.compiler.program import State
from gnflow.errors import EnvironmentProblem, SpecError
from gnflow.models.model import Model
from gnflow.spec.experiment import Experiment
from gnflow.track import location, store, study
from gnflow.train import checkpoint, results
from gnflow.workspace import Workspace

pytestmark = mlflow_warnings

LOSSES = [4.9, 4.5, 4.1, 3.8]
SEEDS = ("seed_0", "seed_1")


@pytest.fixture(scope="module")
def empty_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("store") / "mlflow.db"
    client(f"sqlite:///{file}").search_experiments()
    return file


@pytest.fixture
def workspace(tmp_path: Path, empty_database: Path, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    """A project with two seeds of one arm of a study, and a store that is ready."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "dvc.yaml").write_text("stages: {}\n")
    workspace = Workspace(tmp_path)
    workspace.mlflow.mkdir()
    shutil.copy(empty_database, workspace.mlflow)
    for seed, name in enumerate(SEEDS):
        run = workspace.runs / "sizes" / "muon" / name
        finished(run, spec(seed), steps(LOSSES, began=BEGAN + 100 * seed))
        weigh(run)
    return workspace


def spec(seed: int = 0, **tracking: str) -> Experiment:
    tree = experiment("muon", seed=seed).model_dump()
    tree["model"] |= {"layers": 1, "width": 16, "heads": 2}
    return Experiment.model_validate(tree | {"tracking": {"kind": "mlflow", "study": "sizes", **tracking}})


def network(run: Path) -> Model:
    made = spec()
    return build.build_model(made, build.choose_kernel(made))


def weigh(run: Path) -> None:
    """The `model/` that a finished run leaves."""
    results.write_model(run, checkpoint.save(run / "checkpoints", State(3, network(run).init(0), ())))


def tracked(*names: str) -> None:
    assert track([Path(name) for name in names or ("runs",)]) == 0


def content(workspace: Workspace) -> dict[str, Any]:
    """Everything that the store has of the study, ids left out."""
    uri = location.find_tracking_uri(workspace)
    there = client(uri)
    group = there.get_experiment_by_name("gnflow").experiment_id
    runs = there.search_runs([group])
    names = {run.info.run_id: run.info.run_name for run in runs}
    return {
        run.info.run_name: {
            "status": run.info.status,
            "times": (run.info.start_time, run.info.end_time),
            "params": run.data.params,
            "tags": {key: value for key, value in run.data.tags.items() if key != store.PARENT},
            "parent": names.get(run.data.tags.get(store.PARENT)),
            "points": {key: points(uri, run.info.run_id, key) for key in run.data.metrics},
            "files": sorted(file.path for file in there.list_artifacts(run.info.run_id)),
            "datasets": [
                (given.dataset.name, given.dataset.digest, given.tags[0].value) for given in run.inputs.dataset_inputs
            ],
            "models": [output.step for output in run.outputs.model_outputs],
        }
        for run in runs
    }


def test_a_study_is_a_parent_with_its_runs_nested(workspace: Workspace, capsys: pytest.CaptureFixture[str]) -> None:
    tracked("sizes")
    runs = [workspace.runs / "sizes" / "muon" / seed for seed in SEEDS]
    assert capsys.readouterr().out.splitlines() == [f"{run} is run {run_id(run)}" for run in runs]
    found = content(workspace)
    assert found.keys() == {"sizes", "muon/seed_0", "muon/seed_1"}
    assert [found[f"muon/{seed}"]["parent"] for seed in SEEDS] == ["sizes", "sizes"]
    assert found["sizes"]["parent"] is None
    assert found["sizes"]["status"] == "FINISHED"
    first, last = steps(LOSSES)[0].time, steps(LOSSES, began=BEGAN + 100)[-1].time
    assert found["sizes"]["times"] == (round(first * 1000), round(last * 1000))
    assert {found[name]["tags"]["gnflow.study"] for name in found} == {"sizes"}


def test_tracked_twice_is_there_once(workspace: Workspace) -> None:
    tracked()
    before, ids = content(workspace), [run_id(path.parent) for path in workspace.runs.rglob("mlflow.json")]
    for memory in workspace.runs.rglob("mlflow.json"):
        memory.unlink()
    tracked()
    assert content(workspace) == before
    assert [run_id(path.parent) for path in workspace.runs.rglob("mlflow.json")] == ids
    run = workspace.runs / "sizes" / "muon" / "seed_1"
    assert points(location.find_tracking_uri(workspace), run_id(run)) == expected(steps(LOSSES, began=BEGAN + 100))
    group = client(location.find_tracking_uri(workspace)).get_experiment_by_name("gnflow").experiment_id
    assert len(client(location.find_tracking_uri(workspace)).search_logged_models([group])) == len(SEEDS)


def test_a_lost_store_is_refilled(workspace: Workspace, empty_database: Path) -> None:
    tracked()
    before = content(workspace)
    shutil.rmtree(workspace.mlflow)
    workspace.mlflow.mkdir()
    shutil.copy(empty_database, workspace.mlflow)
    tracked()
    after = content(workspace)
    assert after == before
    seed = after["muon/seed_0"]
    assert seed["datasets"] == [
        ("shakespeare/train", "d" * 36, "train"),
        ("shakespeare/held_out", "d" * 36, "held_out"),
    ]
    assert seed["models"] == [3]
    assert len(seed["points"]["loss/held_out"]) == len(LOSSES)


@pytest.mark.filterwarnings("ignore:.*Any type hint is inferred as AnyType")  # MLflow of itself, when imported
def test_the_model_in_mlflow_gives_the_logits_of_the_run(workspace: Workspace) -> None:
    import mlflow.pyfunc

    tracked("sizes/muon/seed_0")
    run = workspace.runs / "sizes" / "muon" / "seed_0"
    there = client(location.find_tracking_uri(workspace))
    [output] = there.get_run(run_id(run)).outputs.model_outputs
    place = there.get_logged_model(output.model_id).artifact_location
    assert not [
        path for path in Path(place.removeprefix("file://")).rglob("*") if path.suffix in (".pkl", ".pth", ".pt")
    ]
    loaded = mlflow.pyfunc.load_model(place)
    signature = loaded.metadata.signature
    assert [tensor.shape for tensor in (*signature.inputs, *signature.outputs)] == [(-1, 64), (-1, 64, 512)]
    ids = np.random.default_rng(0).integers(0, 512, (2, 64))
    expected_logits = network(run).compute_logits(network(run).init(0), torch.as_tensor(ids))
    assert loaded.predict(ids).dtype == np.float32
    assert np.array_equal(loaded.predict(ids), expected_logits.numpy())
    with pytest.raises(Exception, match="shape"):
        loaded.predict(ids[:, :5])


def test_an_upload_that_broke_off_is_taken_up_again(workspace: Workspace) -> None:
    from mlflow.entities import LoggedModelStatus

    tracked("sizes/muon/seed_0")
    run = workspace.runs / "sizes" / "muon" / "seed_0"
    there = client(location.find_tracking_uri(workspace))
    [output] = there.get_run(run_id(run)).outputs.model_outputs
    there.finalize_logged_model(output.model_id, LoggedModelStatus.FAILED)
    place = Path(there.get_logged_model(output.model_id).artifact_location.removeprefix("file://"))
    (place / "MLmodel").unlink()
    tracked("sizes/muon/seed_0")
    assert (place / "MLmodel").is_file()
    assert there.get_logged_model(output.model_id).status == LoggedModelStatus.READY
    assert len(there.get_run(run_id(run)).outputs.model_outputs) == 1


def test_two_parents_made_at_once_become_one(workspace: Workspace) -> None:
    tracked("sizes/muon/seed_0")
    there = client(location.find_tracking_uri(workspace))
    group = there.get_experiment_by_name("gnflow").experiment_id
    kept = study.ensure_parent("sizes", group, 0, there)
    tags = there.get_run(kept).data.tags
    rival = there.create_run(group, start_time=10**15, tags=dict(tags)).info.run_id
    run = run_id(workspace.runs / "sizes" / "muon" / "seed_0")
    there.set_tag(run, store.PARENT, rival)  # as a process that saw only the rival would
    stray = there.create_run(group, tags={store.PARENT: rival}).info.run_id
    assert study.ensure_parent("sizes", group, 0, there) == kept
    assert {there.get_run(child).data.tags[store.PARENT] for child in (run, stray)} == {kept}
    assert there.get_run(rival).info.lifecycle_stage == "deleted"
    assert len(store.find_runs(tags["gnflow.identity"], group, there)) == 1


def test_processes_at_once_make_one_parent(workspace: Workspace) -> None:
    seeds = [f"seed_{seed}" for seed in range(8)]
    for seed, name in enumerate(seeds):
        directory = workspace.runs / "sizes" / "muon" / name
        if not directory.exists():
            finished(directory, spec(seed), steps(LOSSES, began=BEGAN - 100 * seed))
            weigh(directory)
    script = Path(__file__).parent.parent / "rivals.py"
    runs = [f"sizes/muon/{name}" for name in seeds]
    said = subprocess.run([sys.executable, str(script), *runs], stderr=subprocess.PIPE, text=True)
    assert said.returncode == 0, said.stderr
    found = content(workspace)
    assert sorted(found) == [*(f"muon/{name}" for name in seeds), "sizes"]
    assert {found[f"muon/{name}"]["parent"] for name in seeds} == {"sizes"}
    assert found["sizes"]["status"] == "FINISHED"


def test_a_run_that_ends_while_its_study_is_marked_is_seen(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    tracked("sizes/muon/seed_0")
    there = client(location.find_tracking_uri(workspace))
    group = there.get_experiment_by_name("gnflow").experiment_id
    parent = study.ensure_parent("sizes", group, 0, there)
    running = there.create_run(group, tags={store.PARENT: parent}).info.run_id
    find = store.find_children

    def find_before_another_process_ends_it(*arguments):
        found = find(*arguments)
        there.set_terminated(running, end_time=10**12)
        return found

    monkeypatch.setattr(store, "find_children", find_before_another_process_ends_it)
    study.settle(parent, group, there)
    assert there.get_run(parent).info.status == "FINISHED"


def test_a_study_runs_while_one_of_its_runs_does(workspace: Workspace) -> None:
    tracked()
    there = client(location.find_tracking_uri(workspace))
    group = there.get_experiment_by_name("gnflow").experiment_id
    there.update_run(run_id(workspace.runs / "sizes" / "muon" / "seed_1"), status="RUNNING")
    tracked("sizes/muon/seed_0")
    assert there.get_run(study.ensure_parent("sizes", group, 0, there)).info.status == "RUNNING"
    tracked("sizes/muon/seed_1")
    assert there.get_run(study.ensure_parent("sizes", group, 0, there)).info.status == "FINISHED"


@pytest.mark.parametrize("place", [".", "pipelines/sizes"])
def test_a_run_names_its_entry_in_the_lock_and_the_lock_names_the_run(workspace: Workspace, place: str) -> None:
    run = workspace.runs / "sizes" / "muon" / "seed_0"
    md5 = hashlib.md5((run / "summary.json").read_bytes()).hexdigest()
    entry = {"cmd": "gnflow run", "outs": [{"path": "runs/sizes/muon/seed_0/summary.json", "md5": md5, "size": 3}]}
    lock = workspace.root / place / "dvc.lock"
    lock.parent.mkdir(parents=True, exist_ok=True)
    lock.write_text(json.dumps({"schema": "2.0", "stages": {"run@muon": entry}}))
    tracked("runs")
    found = content(workspace)
    canonical = json.dumps(entry, sort_keys=True, separators=(",", ":"))
    assert found["muon/seed_0"]["tags"]["gnflow.dvc_lock"] == hashlib.sha256(canonical.encode()).hexdigest()
    assert found["muon/seed_0"]["tags"]["gnflow.dvc_stage"] == f"{lock.relative_to(workspace.root)}:run@muon"
    assert "gnflow.dvc_lock" not in found["muon/seed_1"]["tags"]


def test_an_entry_of_an_older_summary_is_not_named(workspace: Workspace) -> None:
    entry = {"outs": [{"path": "runs/sizes/muon/seed_0/summary.json", "md5": "0" * 32}]}
    (workspace.root / "dvc.lock").write_text(json.dumps({"stages": {"run@muon": entry}}))
    tracked("sizes/muon/seed_0")
    assert "gnflow.dvc_lock" not in content(workspace)["muon/seed_0"]["tags"]


def test_what_cannot_be_tracked_is_said(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SpecError, match="no run `sizes/moun`"):
        track([Path("sizes/moun")])
    (workspace.runs / "sizes" / "muon" / "seed_0" / "journal.jsonl").write_bytes(b"")
    with pytest.raises(EnvironmentProblem, match="no record yet"):
        track([Path("runs/sizes/muon/seed_0")])
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    command = [sys.executable, "-m", "gnflow", "track", "runs/sizes/muon/seed_1"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, len(done.stderr.splitlines())) == (7, "", 1)
    assert "MLflow at http://127.0.0.1:9 did not accept runs/sizes/muon/seed_1: " in done.stderr
