"""`gnflow compare`, `gnflow list`, `gnflow show`."""

import json
import re
from pathlib import Path

import pytest
from arms import arm
from run_directories import BEGAN, PROVENANCE, append, begin, experiment, finished, steps

from gnflow.commands.compare import compare
from gnflow.commands.list import list_runs
from gnflow.commands.show import show
from gnflow.errors import SpecError

PLAN = {
    "steps": 12,
    "parameters": 213_000,
    "step": {"tokens/solve": 131_072, "tokens/search": 16_384, "passes/serial": 65, "flops": 1.5e12},
}


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "dvc.yaml").touch()
    monkeypatch.chdir(tmp_path)
    runs = tmp_path / "runs"
    finished(runs / "full_gn", experiment(), steps([4.9, 4.0, 3.39]), **PLAN)
    slow = [4.9 - 0.1 * step for step in range(12)]
    finished(runs / "muon", experiment("muon"), steps(slow, passes=1, searched=0, seconds=4.0), **PLAN)
    append(begin(runs / "young", experiment()), steps([4.9, 4.5]))
    return tmp_path


@pytest.fixture(params=["text", "json"])
def as_json(request: pytest.FixtureRequest) -> bool:
    return request.param == "json"


def test_compare_prints_the_answer_and_a_matrix(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert compare([Path("full_gn"), Path("runs/muon")], targets=(), reference=None, json=False) == 0
    answer, matrix, rest = capsys.readouterr().out.split("\n\n")
    assert answer == (
        "full_gn needs at least 5.5x fewer steps than muon to 3.40 (1 seed: no interval), and 4.9x fewer tokens "
        "and 5.5x fewer FLOPs."
    )
    title, header, gauss_newton, muon, *notes = matrix.splitlines()
    assert title == "to a held-out loss of 3.40"
    assert re.split(r"  +", header) == [
        "arm", "reached", "steps", "x", "serial passes", "x", "tokens, k", "x", "FLOPs, T", "x", "time, s", "x",
    ]  # fmt: skip
    assert gauss_newton.split() == ["full_gn", "1/1", "2", "1", "130", "1", "295", "1", "3.00", "1", "25.0", "1"]
    assert muon.split()[:5] == ["muon", "0/1", "missed", "≥", "5.5"]
    assert notes[0] == "One seed: no difference is certain."
    verdict, warning, more = rest.splitlines()
    assert verdict.startswith("muon has not reached 3.40 in 11 steps (best 3.8000): full_gn needs at least 5.5x fewer")
    assert warning.startswith("warning: no tuning is recorded")
    assert more.startswith("`--all` prints")


def test_compare_prints_every_table_if_asked(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runs = [Path("full_gn"), Path("runs/muon")]
    assert compare(runs, targets=(), reference=None, json=False, everything=True) == 0
    _, _, arms, results, ratios, _ = capsys.readouterr().out.split("\n\n")
    header, gauss_newton, _ = arms.splitlines()
    assert header.split() == [
        "arm", "optimizer", "learning", "rates", "seeds", "trials", "update", "RMS", "start", "best",
    ]  # fmt: skip
    assert gauss_newton.split() == [
        "full_gn", "gauss_newton", "inner", "0.02,", "inner.others", "0.003", "0", "0", "0.00065", "4.9000", "3.3900",
    ]  # fmt: skip
    title, header, gauss_newton, muon = results.splitlines()
    assert title.strip() == "to loss/held_out <= 3.40"
    assert header.split() == ["arm", "reached", "steps", "passes", "tokens", "solve", "search", "FLOPs", "time"]
    assert gauss_newton.split() == [
        "full_gn", "1", "of", "1", "2", "130", "295k", "262k", "32.8k", "3e+12", "25.0", "s",
    ]  # fmt: skip
    assert muon.split() == ["muon", "0", "of", "1", "missed", "-", "-", "-", "-", "-", "-"]
    assert ratios.splitlines()[2].split() == ["muon", "steps", ">=", "5.5", "-", "-", "-", "-", "1"]
    assert [line.split()[0] for line in ratios.splitlines()[3:]] == ["serial", "tokens", "FLOPs", "seconds"]


def test_compare_prints_medians_intervals_and_a_profile(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arm(Path("gn"), [4, 6, 5], "gauss_newton")
    arm(Path("soap"), [10, 14, None], "soap", seconds=1.0)
    paths = [path for name in ("gn", "soap") for path in sorted(Path(name).glob("seed_*"))]
    assert compare(paths, targets=[3.9, 3.4], reference="gn", json=False, everything=True) == 0
    printed = capsys.readouterr().out
    assert "to loss/held_out <= 3.90 (medians over seeds)" in printed
    assert re.search(r"^soap +2 of 3 +14 ", printed, re.MULTILINE)
    assert re.search(r"^soap +steps +>= 2\.9 +1\.38 to inf +2\.3 to inf +- +- +3$", printed, re.MULTILINE)
    assert "share of 6 problems (target, seed) within a factor of the fewest steps" in printed
    assert re.search(r"^gn +1\.00 +1\.00 +1\.00 +1\.00 +1\.00$", printed, re.MULTILINE)


def test_compare_of_runs_without_a_target_prints_losses_at_equal_budgets(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    free = {"target": None}
    finished(Path("runs/gn_free"), experiment(**free), steps([4.9, 4.0, 3.4]), **PLAN)
    finished(Path("runs/muon_free"), experiment("muon", **free), steps([4.9, 4.6, 4.3, 4.0], passes=1), **PLAN)
    assert compare([Path("gn_free"), Path("muon_free")], targets=(), reference=None, json=False, everything=True) == 0
    printed = capsys.readouterr().out
    assert re.search(r"^arm +steps +serial passes +tokens +FLOPs +seconds$", printed, re.MULTILINE)
    assert re.search(r"^budget +2 +3 +295k +3e\+12 +25\.0 s$", printed, re.MULTILINE)
    assert re.search(r"^gn_free +3\.4000 +4\.9000 \(after 0%\) +3\.4000 +3\.4000 +3\.4000$", printed, re.MULTILINE)
    assert re.search(r"^muon_free +tokens +\+0\.9000 +- +- +- +- +1$|^ +tokens +\+0\.9000", printed, re.MULTILINE)
    assert "The loss of gn_free is 0.900 below that of muon_free at 295k tokens" in printed


@pytest.mark.parametrize("width", [40, 80])
def test_a_narrow_terminal_gets_every_figure_whole(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], width: int
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")  # as on a terminal
    monkeypatch.setenv("COLUMNS", str(width))
    list_runs(json=False)
    listed = capsys.readouterr().out
    assert all(figure in listed for figure in ("11/12", "3.8000", "1.44M", "44.0 s", "gauss_newton"))
    compare([Path("full_gn"), Path("muon")], targets=(), reference=None, json=False, everything=True)
    compared = capsys.readouterr().out
    assert all(figure in compared for figure in ("32.8k", "3e+12", "25.0 s", ">= 5.5"))
    assert "…" not in listed + compared


def test_compare_of_one_run_is_its_costs(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert compare([Path("full_gn")], targets=(), reference=None, json=False) == 0
    assert "full_gn reaches 3.40 in 2 steps (1 seed)." in capsys.readouterr().out


def test_compare_warns(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    compare([Path("muon"), Path("young")], targets=[4.6], reference=None, json=False)
    assert "warning: young is unfinished" in capsys.readouterr().out


def test_compare_as_json_is_nothing_but_json(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    compare([Path("full_gn"), Path("muon")], targets=[3.95], reference=None, json=True)
    tree = json.loads(capsys.readouterr().out)
    assert [result["steps"]["median"] for result in tree["results"]["3.95"].values()] == [2, 10]
    assert tree["ratios"]["3.95"]["muon"]["steps"]["factor"] == pytest.approx(5)


def test_a_run_that_is_not_there_is_answered_with_the_nearest(project: Path) -> None:
    with pytest.raises(SpecError, match="did you mean `full_gn`"):
        compare([Path("ful_gn"), Path("muon")], targets=(), reference=None, json=False)


def test_list_prints_a_line_for_each_run(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert list_runs(json=False) == 0
    header, *lines = capsys.readouterr().out.splitlines()
    assert header.split() == ["run", "optimizer", "status", "steps", "loss/held_out", "tokens", "time", "recorded"]
    words = {line.split()[0]: line.split()[1:] for line in lines}
    assert words["full_gn"][:5] == ["gauss_newton", "complete", "2/12", "3.3900", "295k"]
    assert words["muon"][:3] == ["muon", "complete", "11/12"]
    assert words["young"][:4] == ["gauss_newton", "unfinished", "1", "4.5000"]


def test_list_as_json_is_nothing_but_json(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    list_runs(json=True)
    rows = {row["name"]: row for row in json.loads(capsys.readouterr().out)}
    assert rows["full_gn"]["loss"] == 3.39
    assert rows["full_gn"]["seconds"] == 25.0
    assert rows["young"]["status"] == "unfinished"


def test_list_survives_a_run_that_it_cannot_read(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (project / "runs" / "muon" / "experiment.yaml").write_text("name: [")
    list_runs(json=True)
    rows = {row["name"]: row["status"] for row in json.loads(capsys.readouterr().out)}
    assert rows == {"full_gn": "complete", "muon": "unreadable", "young": "unfinished"}


def test_list_without_runs_says_so(tmp_path: Path, monkeypatch, capsys: pytest.CaptureFixture[str], as_json) -> None:
    monkeypatch.chdir(tmp_path)
    assert list_runs(json=as_json) == 0
    out = capsys.readouterr().out
    assert json.loads(out) == [] if as_json else out.startswith("There are no runs in ")


@pytest.fixture
def resumed(project: Path) -> Path:
    """A run with two sessions, an event and a checkpoint."""
    run = project / "runs" / "full_gn"
    sessions = [
        {
            "started": BEGAN + 3600 * n,
            "resumed_from": n or None,
            "device": "cpu",
            "host": "box",
            "command": f"gnflow {n}",
        }
        for n in range(2)
    ]
    (run / "provenance.json").write_text(json.dumps({**PROVENANCE, "sessions": sessions}))
    with (run / "journal.jsonl").open("a") as file:
        event = {"kind": "event", "step": 2, "time": BEGAN, "name": "refused", "message": "the iterate stays"}
        file.write(json.dumps(event) + "\n")
    (run / "checkpoints" / "step_00000002").mkdir(parents=True)
    return run


def test_show_tells_spec_plan_course_and_sessions(resumed: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert show(Path("full_gn"), json=False) == 0
    out = capsys.readouterr().out
    for part in (
        "full_gn: complete, last recorded just now",
        "gauss_newton",
        "steps 12, target.at_most 3.4",
        "12 steps on cpu, 213k parameters",
        "a step: 131k tokens, 16.4k more for the search, 65 serial passes, 1.5e+12 FLOPs",
        "4.9000 -> 3.3900, best 3.3900",
        "█▄▁",
        "3.4 reached at step 2, after 295k tokens and 25.0 s",
        "norm/update 0.3",
        "from the start on cpu of box: gnflow 0",
        "from step 1 on cpu of box: gnflow 1",
        "step 2: refused: the iterate stays",
        "step_00000002",
    ):
        assert part in out


def test_show_as_json_is_nothing_but_json(resumed: Path, capsys: pytest.CaptureFixture[str]) -> None:
    show(resumed, json=True)
    tree = json.loads(capsys.readouterr().out)
    assert tree["status"] == "complete"
    assert tree["experiment"]["optimizer"]["kind"] == "gauss_newton"
    assert tree["losses"] == [4.9, 4.0, 3.39]
    assert tree["last"]["step"] == 2
    assert len(tree["sessions"]) == 2
    assert tree["events"][0]["name"] == "refused"
    assert tree["checkpoints"] == ["step_00000002"]


def test_show_of_a_run_before_its_first_record(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    begin(project / "runs" / "new", experiment())
    assert show(Path("new"), json=False) == 0
    assert "3.4 not reached" in capsys.readouterr().out
