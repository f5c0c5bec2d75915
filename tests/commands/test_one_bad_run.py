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


FAULTS = pytest.mark.parametrize("fault", [close_folder, close_spec, close_journal, spoil_plan])


@pytest.fixture
def project(tmp_path: Path) -> Iterator[Path]:
    """Two good runs, and one to be spoilt between them."""
    root = tiny.write_project(tmp_path / "project")
    for number, name in enumerate(("a_good", "bad", "good")):
        finished(root / "runs" / name, experiment(seed=number), steps(LOSSES, began=BEGAN + number), steps=12)
    yield root
    for path in (root / "runs" / "bad", *(root / "runs" / "bad").glob("*")):
        path.chmod(0o755)


@FAULTS
def test_list_shows_the_others_and_names_it(fault: Callable[[Path], None], project: Path) -> None:
    fault(project / "runs" / "bad")
    done = without_privilege("list", "--json", root=project)
    rows = {row["name"]: row["status"] for row in json.loads(done.stdout)}
    assert rows == {"a_good": "complete", "good": "complete", "bad": "unreadable"}
    assert done.returncode == 7
    assert done.stderr.count("\n") == 1
    assert done.stderr.startswith(f"{project}/runs/bad is left out: ")


@FAULTS
def test_compare_compares_the_others_and_names_it(fault: Callable[[Path], None], project: Path) -> None:
    fault(project / "runs" / "bad")
    done = without_privilege("compare", "a_good", "bad", "good", "--json", root=project)
    assert done.returncode == 7, done.stderr
    assert json.loads(done.stdout)["arms"]
    assert done.stderr.startswith("bad is left out: ")
    assert "Traceback" not in done.stderr


def test_report_is_written_of_the_others(project: Path) -> None:
    close_journal(project / "runs" / "bad")
    done = without_privilege("report", "a_good", "bad", "good", "-o", "report.html", root=project)
    assert done.returncode == 7, done.stderr
    assert (project / "report.html").stat().st_size > 0
    assert done.stderr.startswith("bad is left out: ")


def test_a_comparison_of_nothing_that_can_be_read_says_why(project: Path) -> None:
    close_folder(project / "runs" / "bad")
    done = without_privilege("compare", "bad", root=project)
    assert done.returncode == 7
    assert done.stderr == f"bad is left out: {project}/runs/bad cannot be read: Permission denied\n"
    assert without_privilege("compare", "baad", root=project).returncode == 3


@pytest.mark.parametrize("fault", [close_journal, spoil_plan])
def test_track_sends_the_others_and_names_it(fault: Callable[[Path], None], project: Path) -> None:
    fault(project / "runs" / "bad")
    done = without_privilege("track", "runs", root=project)
    sent = [line.split(" is run ")[0] for line in done.stdout.splitlines()]
    if fault is spoil_plan:  # MLflow gets the file as it is
        assert (done.returncode, sent) == (0, ["runs/a_good", "runs/bad", "runs/good"])
        return
    assert sent == ["runs/a_good", "runs/good"]
    assert done.returncode == 7
    assert "runs/bad" in done.stderr
    assert "Permission denied" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_store_that_is_away_is_asked_once_and_not_for_every_run(project: Path, monkeypatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    done = without_privilege("track", "runs", root=project)
    assert done.returncode == 7
    assert "did not accept runs/a_good: Connection refused. The 2 runs after it were not tried" in done.stderr
    assert done.stderr.count("\n") == 1


def test_what_only_looks_at_other_runs_is_not_stopped_by_one(project: Path) -> None:
    YAML().dump(tiny.tiny(), project / "tiny.yaml")
    close_folder(project / "runs" / "bad")
    (project / "runs" / "good" / "summary.json").write_text("[]")
    for verb in (["plan", "tiny.yaml"], ["new", "idea"], ["show", "good"]):
        done = without_privilege(*verb, root=project)
        assert done.returncode == 0, done.stderr
