"""One run that cannot be read, among others: every verb does what it can, names it, and exits 7."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import tiny
from permissions import without_privilege
from ruamel.yaml import YAML
from run_directories import BEGAN, experiment, finished, steps

LOSSES = [4.9, 4.5, 4.1, 3.3]


def close_folder(run: Path) -> None:
    run.chmod(0)


def close_spec(run: Path) -> None:
    (run / "experiment.yaml").chmod(0)


def close_journal(run: Path) -> None:
    (run / "journal.jsonl").chmod(0)


def spoil_plan(run: Path) -> None:
    (run / "plan.json").write_text("{")


FAULTS = {"folder": close_folder, "journal": close_journal, "plan": spoil_plan, "spec": close_spec}


def make_project(root: Path, faults: dict[str, Callable[[Path], None]]) -> Path:
    """Two good runs, and between them in the order of their names one with each fault."""
    tiny.write_project(root)
    for number, name in enumerate(("a_good", *faults, "z_good")):
        finished(root / "runs" / name, experiment(seed=number), steps(LOSSES, began=BEGAN + number), steps=12)
    for name, fault in faults.items():
        fault(root / "runs" / name)
    return root


def open_runs(root: Path) -> None:
    """Let pytest remove the project."""
    for run in (root / "runs").iterdir():
        run.chmod(0o755)
        for path in run.iterdir():
            path.chmod(0o755)


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    root = make_project(tmp_path_factory.mktemp("bad") / "project", FAULTS)
    yield root
    open_runs(root)


def test_list_shows_the_others_and_names_it(project: Path) -> None:
    done = without_privilege("list", "--json", root=project)
    rows = {row["name"]: row["status"] for row in json.loads(done.stdout)}
    assert rows == {"a_good": "complete", "z_good": "complete"} | dict.fromkeys(FAULTS, "unreadable")
    assert done.returncode == 7
    for name, line in zip(FAULTS, done.stderr.splitlines(), strict=True):
        assert line.startswith(f"{project}/runs/{name} is left out: ")


def test_compare_compares_the_others_and_names_it(project: Path) -> None:
    done = without_privilege("compare", "a_good", *FAULTS, "z_good", "--json", root=project)
    assert done.returncode == 7, done.stderr
    assert json.loads(done.stdout)["arms"]
    for name in FAULTS:
        assert f"{name} is left out: " in done.stderr
    assert "Traceback" not in done.stderr


def test_report_is_written_of_the_others(project: Path, tmp_path: Path) -> None:
    page = tmp_path / "report.html"
    done = without_privilege("report", "a_good", "journal", "z_good", "-o", str(page), root=project)
    assert done.returncode == 7, done.stderr
    assert page.stat().st_size > 0
    assert done.stderr.startswith("journal is left out: ")


def test_a_comparison_of_nothing_that_can_be_read_says_why(project: Path) -> None:
    done = without_privilege("compare", "folder", root=project)
    assert done.returncode == 7
    assert done.stderr == f"folder is left out: {project}/runs/folder cannot be read: Permission denied\n"


def test_track_sends_the_others_and_names_it(tmp_path: Path) -> None:
    project = make_project(tmp_path / "project", {"journal": close_journal, "plan": spoil_plan})
    done = without_privilege("track", "runs", root=project)
    sent = [line.split(" is run ")[0] for line in done.stdout.splitlines()]
    assert sent == ["runs/a_good", "runs/plan", "runs/z_good"], "MLflow gets a spoilt plan as it is"
    assert done.returncode == 7
    assert "runs/journal" in done.stderr
    assert "Permission denied" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_store_that_is_away_is_asked_once_and_not_for_every_run(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    done = without_privilege("track", "runs", root=make_project(tmp_path / "project", {"plan": spoil_plan}))
    assert done.returncode == 7
    assert "did not accept runs/a_good: Connection refused. The 2 runs after it were not tried" in done.stderr
    assert done.stderr.count("\n") == 1


def test_what_only_looks_at_other_runs_is_not_stopped_by_one(tmp_path: Path) -> None:
    project = make_project(tmp_path / "project", {"folder": close_folder})
    YAML().dump(tiny.tiny(), project / "tiny.yaml")
    (project / "runs" / "z_good" / "summary.json").write_text("[]")
    for verb in (["plan", "tiny.yaml"], ["new", "idea"], ["show", "z_good"]):
        done = without_privilege(*verb, root=project)
        assert done.returncode == 0, done.stderr
    open_runs(project)
