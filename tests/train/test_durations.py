"""What a run says before its first step."""

import json
from pathlib import Path

import pytest
import tiny

from gnflow.train import durations, start
from gnflow.train.durations import Durations
from gnflow.train.loop import run
from gnflow.workspace import Workspace


@pytest.fixture
def project(tmp_path: Path) -> Workspace:
    return Workspace(tiny.write_project(tmp_path / "project"))


def test_the_last_duration_of_the_same_thing_is_said(project: Workspace) -> None:
    here = Durations(project, tiny.experiment())
    assert here.describe("compiling region `value`") == "compiling region `value`"
    here.keep({"compiling region `value`": 41.4, "a trifle": 0.3})
    again = Durations(project, tiny.experiment(name="other", seed=7, steps=9))
    assert again.describe("compiling region `value`") == "compiling region `value` (it took 41 s last time)"
    assert again.describe("a trifle") == "a trifle"
    other = Durations(project, tiny.experiment("gauss_newton"))
    assert other.describe("compiling region `value`") == "compiling region `value`"


def test_only_so_many_durations_are_kept_and_the_oldest_go(project: Workspace, monkeypatch) -> None:
    monkeypatch.setattr(durations, "KEPT", 3)
    here = Durations(project, tiny.experiment())
    for number in range(5):
        here.keep({f"thing {number}": 10.0 + number})
    assert list(json.loads((project.cache / durations.FILE).read_text()).values()) == [12.0, 13.0, 14.0]


@pytest.mark.parametrize("content", [b"", b"[1]", b'{"a": "b"}', b"\xff"])
def test_a_spoilt_file_of_durations_ends_nothing(content: bytes, project: Workspace) -> None:
    project.cache.mkdir()
    (project.cache / durations.FILE).write_bytes(content)
    here = Durations(project, tiny.experiment())
    assert here.describe("warming") == "warming"
    here.keep({"warming": 5.0})
    assert here.describe("warming") == "warming (it took 5 s last time)"


def test_warming_says_how_far_it_is(project: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(start, "REPORT_SECONDS", 0.0)
    said: list[str] = []
    run(tiny.experiment(steps=1), project, report=said.append)
    warming = [line for line in said if line.startswith("warming")]
    assert warming == [
        "warming the starting weights: 3 AdamW steps",
        *(f"warming the starting weights: step {step} of 3" for step in range(3)),
    ]


def test_a_compiled_run_names_each_region_before_it_compiles_it(
    project: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(durations, "WORTH_SAYING", 0.0)
    experiment = tiny.experiment(steps=1, start="scratch")
    experiment = experiment.model_copy(update={"compile": experiment.compile.model_copy(update={"mode": "default"})})
    said: list[str] = []
    for name in ("first", "second"):
        run(experiment, project, project.runs / name, report=said.append)
    compiling = [line for line in said if line.startswith("compiling region ")]
    first, second = compiling[: len(compiling) // 2], compiling[len(compiling) // 2 :]
    assert "compiling region `apply_block.keep`" in first
    assert "compiling region `apply_head.value`" in first
    assert len(set(first)) == len(first)
    assert [line.partition(" (it took ")[0] for line in second] == first
    assert all(line.endswith(" s last time)") for line in second)
