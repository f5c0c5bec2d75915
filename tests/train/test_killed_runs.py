"""A run may be killed at any moment; run again to its end, it equals one that was left alone."""

import json
import subprocess
import sys
from pathlib import Path

import polars
import pytest
import tiny
from ruamel.yaml import YAML

from gnflow.train.journal import Step, read
from gnflow.train.run import Run

KILLER = Path(__file__).parents[1] / "killer.py"
STEPS = 14
OPTIMIZERS = ["adamw", "muon", "gauss_newton"]


def project(root: Path, optimizer: str) -> Path:
    """A project with the spec that all runs here follow; returns the spec."""
    tiny.write_project(root)
    path = root / "tiny.yaml"
    YAML().dump(tiny.tiny(optimizer, steps=STEPS, checkpoint_every=4, temporary_checkpoint_minutes=0.002), path)
    return path


def command(spec: Path) -> list[str]:
    return [sys.executable, "-m", "gnflow", "run", str(spec)]


@pytest.fixture(scope="module", params=OPTIMIZERS)
def untouched(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    """The run directory of a run that nothing disturbed."""
    spec = project(tmp_path_factory.mktemp("untouched") / "project", request.param)
    subprocess.run(command(spec), check=True, capture_output=True)
    return request.param, spec.parent / "runs" / "tiny"


def computed(directory: Path) -> list[tuple[object, ...]]:
    """The journal, line by line, without what a clock says."""
    return [
        (record.step, {name: value for name, value in record.values.items() if not name.startswith("time/")})
        if isinstance(record, Step)
        else (record.step, record.name, record.message)
        for record in read(directory / "journal.jsonl").records
    ]


def assert_equal_but_for_clocks(directory: Path, untouched: Path) -> None:
    names = [path.relative_to(untouched) for path in untouched.rglob("*") if path.is_file()]
    assert sorted(names) == sorted(path.relative_to(directory) for path in directory.rglob("*") if path.is_file())
    clocks = {"journal.jsonl", "metrics.parquet", "summary.json", "provenance.json", ".lock"}
    for name in names:
        if str(name) not in clocks:
            assert (directory / name).read_bytes() == (untouched / name).read_bytes(), name
    assert (directory / "checkpoints" / f"step_{STEPS:08d}" / "optimizer.safetensors").stat().st_size > 100
    assert computed(directory) == computed(untouched)
    ours, theirs = (polars.read_parquet(path / "metrics.parquet") for path in (directory, untouched))
    assert ours["step"].to_list() == list(range(STEPS + 1))
    assert ours.select(polars.exclude("^time/.*$")).equals(theirs.select(polars.exclude("^time/.*$")))
    for name in ("time/seconds", "time/wall"):
        assert ours[name].is_sorted()
    summaries = [Run.load(path).summary for path in (directory, untouched)]
    ours_summary, theirs_summary = (
        {name: value for name, value in summary.items() if "seconds" not in name and not name.startswith("time/")}
        for summary in summaries
    )
    assert ours_summary == theirs_summary


@pytest.mark.parametrize("seed", range(2))
def test_a_run_killed_again_and_again_equals_one_that_was_not(
    untouched: tuple[str, Path], tmp_path: Path, seed: int
) -> None:
    optimizer, expected = untouched
    spec = project(tmp_path / "project", optimizer)
    done = subprocess.run(
        [sys.executable, KILLER, spec, str(seed), "12"], capture_output=True, text=True, check=False
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) >= 4, "too few kills to mean anything"
    directory = spec.parent / "runs" / "tiny"
    sessions = json.loads((directory / "provenance.json").read_text())["sessions"]
    assert [session["resumed_from"] for session in sessions if session["resumed_from"]], "it never resumed"
    assert_equal_but_for_clocks(directory, expected)
