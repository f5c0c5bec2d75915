"""The root dvc.yaml over small specs of the same names, in a repository of its own, with the real dvc and gnflow."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from gnflow.spec.load import load

ROOT = Path(__file__).parents[1]
NAMES = ("adamw", "muon")
MULTIMODAL = ("ml_fop_soap_janus",)
LEFT_OUT = (
    "full_gn", "rmnp", "soap", "fop_soap", "fop_soap_control", "layerwise_gn", "prox_linear_gn", "ml_fop_soap_emu3",
)  # fmt: skip
OPTIMIZERS = {
    "adamw": "{kind: adamw, microbatches: 2}",
    "muon": "{kind: muon, microbatches: 2}",
    "ml_fop_soap_janus": "{kind: ml_fop_soap, leaves: 2, microbatches: 2}",
}
SPEC = """
name: {name}
model: {{kind: decoder, layers: 1, width: 16, heads: 2}}
data: text
optimizer: {optimizer}
training:
  steps: {steps}
  rows: 2
  device: cpu
  start: scratch
  checkpoint_every: 5
  target: {{metric: loss/held_out, at_most: 0.1}}
metrics: [{{kind: loss, microbatches: 1}}, cost]
compile: {{mode: off}}
tracking: none
"""


def small(name: str, steps: int = 2) -> str:
    return SPEC.format(name=name, optimizer=OPTIMIZERS[name], steps=steps)


def environment() -> dict[str, str]:
    return {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}


def dvc(repository: Path, *arguments: str) -> str:
    command = [sys.executable, "-m", "dvc", *arguments]
    done = subprocess.run(command, cwd=repository, env=environment(), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def commit(repository: Path) -> None:
    for arguments in (
        ["add", "--all"],
        ["-c", "user.name=a", "-c", "user.email=a@b", "commit", "--quiet", "--allow-empty", "-m", "x"],
    ):
        subprocess.run(["git", *arguments], cwd=repository, check=True)


def lines(path: Path) -> list[str]:
    return path.read_text().splitlines()


def leave_out(pipeline: str) -> str:
    """Return the shipped pipeline with fewer specs, since each of its runs takes seconds."""
    for name in LEFT_OUT:
        pipeline = re.sub(rf"^ +(- runs/{name}/summary\.json|{name}: .*)\n", "", pipeline, flags=re.MULTILINE)
        pipeline = re.sub(rf" runs/{name}\b", "", pipeline)
    return re.sub(r"^ +\n", "", pipeline, flags=re.MULTILINE)


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("repository")
    subprocess.run(["git", "init", "--quiet"], cwd=root, check=True)
    (root / ".dvc").mkdir()
    (root / "dvc.yaml").write_text(leave_out((ROOT / "dvc.yaml").read_text()))
    for name in (".dvcignore", ".gitignore", ".dvc/config", ".dvc/.gitignore"):
        shutil.copy(ROOT / name, root / name)
    shutil.copytree(ROOT / "specs" / "common", root / "specs" / "common")
    for name in (*NAMES, *MULTIMODAL):
        (root / "specs" / f"{name}.yaml").write_text(small(name))
    (root / "specs" / "full_gn.yaml").write_text(small("muon"))  # whose data the stage `prepare` prepares
    return root


def shipped() -> list[Path]:
    """Specs under version control: what `gnflow new` wrote beside them is the user's own."""
    listed = subprocess.run(
        ["git", "ls-files", "specs/*.yaml"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout  # fmt: skip
    return [path for path in map(Path, listed.splitlines()) if path.parent == Path("specs")]


def test_every_shipped_spec_is_a_stage_and_those_of_text_are_compared(repository: Path) -> None:
    stages = YAML(typ="safe").load((ROOT / "dvc.yaml").read_text())["stages"]
    texts, multimodal = stages["run"]["foreach"], stages["run_multimodal"]["foreach"]
    assert {path.stem for path in shipped()} == {*texts, *multimodal} == {*NAMES, *MULTIMODAL, *LEFT_OUT}
    for verb in ("compare", "report"):
        assert stages[verb]["deps"] == [f"runs/{name}/summary.json" for name in texts]
        assert re.findall(r"runs/(\w+)(?= )", stages[verb]["cmd"])[: len(texts)] == list(texts)
    runs = {*(f"run@{name}" for name in NAMES), *(f"run_multimodal@{name}" for name in MULTIMODAL)}
    assert set(dvc(repository, "stage", "list", "--name-only").split()) == {"prepare", "compare", "report", *runs}


def test_a_run_has_the_values_of_every_file_that_its_spec_extends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    stages = YAML(typ="safe").load((ROOT / "dvc.yaml").read_text())["stages"]
    extended = {**stages["run"]["foreach"], **stages["run_multimodal"]["foreach"]}
    for path in shipped():
        origins = load(path).origins.values()
        sources = {Path(origin.source.name).resolve() for origin in origins if origin.kind == "file"}
        multimodal = path.stem in stages["run_multimodal"]["foreach"]
        base = Path("specs/common/digits_emu3.yaml" if multimodal else "specs/common/shakespeare.yaml")
        known = {path, Path(extended[path.stem]), base}
        assert path.resolve() in sources
        assert sources <= {file.resolve() for file in known}


def test_the_repository_sends_no_telemetry(repository: Path) -> None:
    assert dvc(repository, "config", "core.analytics").strip() == "false"
    assert dvc(repository, "config", "core.check_update").strip() == "false"


def test_a_stage_says_what_is_missing_where_gnflow_is_not_on_the_path(repository: Path) -> None:
    command = [sys.executable, "-m", "dvc", "repro", "prepare"]
    bare = {**os.environ, "PATH": "/usr/bin:/bin"}
    done = subprocess.run(command, cwd=repository, env=bare, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert "gnflow is not on the PATH; activate the environment that it is installed in, as in: source" in done.stderr
    assert "exited with 7" in done.stderr


def test_make_repro_needs_no_activated_environment(tmp_path: Path) -> None:
    (tmp_path / "dvc.yaml").write_text("stages: {say: {cmd: gnflow --version > version.txt, outs: [version.txt]}}\n")
    subprocess.run(["git", "init", "--quiet"], cwd=tmp_path, check=True)
    dvc(tmp_path, "init", "--quiet")
    venv = Path(sys.executable).parents[1]
    command = ["make", "-f", str(ROOT / "Makefile"), "--assume-old=setup", "repro", f"VENV={venv}"]
    bare = {**os.environ, "PATH": "/usr/bin:/bin"}
    done = subprocess.run(command, cwd=tmp_path, env=bare, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert (tmp_path / "version.txt").read_text().startswith("gnflow ")


@pytest.fixture(scope="module")
def reproduced(repository: Path) -> Path:
    dvc(repository, "repro")
    commit(repository)
    return repository


def test_a_second_repro_does_nothing_and_a_lost_summary_comes_back_without_training(reproduced: Path) -> None:
    repository = reproduced
    assert all((repository / "runs" / name / "model").is_dir() for name in NAMES)
    json.loads((repository / "runs" / "comparison.json").read_text())
    journals = {name: lines(repository / "runs" / name / "journal.jsonl") for name in NAMES}

    second = dvc(repository, "repro")
    assert "up to date" in second
    assert "Running stage" not in second
    assert dvc(repository, "status").strip() == "Data and pipelines are up to date."

    (repository / "runs" / "muon" / "summary.json").unlink()
    dvc(repository, "repro")
    assert (repository / "runs" / "muon" / "summary.json").exists()
    assert journals == {name: lines(repository / "runs" / name / "journal.jsonl") for name in NAMES}


def stages_run(output: str) -> set[str]:
    return set(re.findall(r"Running stage '([^']+)'", output))


@pytest.mark.faults
def test_another_learning_rate_runs_that_spec_again_and_nothing_else(reproduced: Path) -> None:
    repository = reproduced
    spec, before = repository / "specs" / "muon.yaml", lines(repository / "runs" / "muon" / "journal.jsonl")
    spec.write_text("# only a comment\n" + spec.read_text())
    assert "up to date" in dvc(repository, "status")

    spec.write_text(spec.read_text().replace("{kind: muon,", "{kind: muon, learning_rate: 0.013,"))
    assert "0.013" in dvc(repository, "params", "diff")
    assert stages_run(dvc(repository, "repro")) == {"run@muon", "compare", "report"}
    (aside,) = (repository / "runs" / ".superseded").glob("muon-*")
    assert lines(aside / "journal.jsonl") == before
    rate = json.loads((repository / "runs" / "comparison.json").read_text())["arms"]["muon"]["learning_rates"]
    assert 0.013 in rate.values()


def test_metrics_and_plots_are_shown(reproduced: Path, tmp_path: Path) -> None:
    repository = reproduced
    shown = json.loads(dvc(repository, "metrics", "show", "--json"))[""]["data"]
    assert shown["runs/muon/summary.json"]["data"]["loss/held_out"] > 0
    dvc(repository, "plots", "show", "--out", str(tmp_path))
    assert list(tmp_path.rglob("*.png"))
    assert "<svg" in (repository / "runs" / "report.html").read_text()


def test_results_travel_through_a_remote(reproduced: Path, tmp_path: Path) -> None:
    repository = reproduced
    commit(repository)
    store, elsewhere = tmp_path / "store", tmp_path / "elsewhere"
    dvc(repository, "remote", "add", "--default", "--force", "shared", str(store))
    dvc(repository, "push")
    shutil.copytree(repository, elsewhere, ignore=shutil.ignore_patterns("runs", "data", "cache", "tmp"))
    assert not (elsewhere / "runs").exists()
    dvc(elsewhere, "pull")
    for name in ("runs/muon/model/params.safetensors", "runs/muon/summary.json", "runs/report.html"):
        assert (elsewhere / name).read_bytes() == (repository / name).read_bytes()


@pytest.mark.faults
def test_a_killed_repro_goes_on_with_the_same_run(repository: Path) -> None:
    steps = 200
    spec, run = repository / "specs" / "adamw.yaml", repository / "runs" / "adamw"
    spec.write_text(small("adamw", steps))
    shutil.rmtree(run, ignore_errors=True)
    command = [sys.executable, "-m", "dvc", "repro", "run@adamw"]
    with subprocess.Popen(
        command, cwd=repository, env=environment(), stdout=subprocess.DEVNULL, start_new_session=True
    ) as running:
        while not list(run.glob("checkpoints/step_*")):
            assert running.poll() is None, "it ended before its first checkpoint"
            time.sleep(0.02)
        os.killpg(running.pid, signal.SIGKILL)
    before = lines(run / "journal.jsonl")
    assert not (run / "summary.json").exists()

    dvc(repository, "repro", "run@adamw")
    after = lines(run / "journal.jsonl")
    assert after[: len(before) - 1] == before[:-1]
    recorded = [record["step"] for record in map(json.loads, after) if record["kind"] == "step"]
    assert recorded == list(range(steps + 1))
