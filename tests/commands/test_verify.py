import json
from pathlib import Path

import pytest

from gnflow.commands.verify import verify
from gnflow.errors import SpecError
from gnflow.verify import checks
from gnflow.verify.subject import CheckFailed

GOOD = "name: a\ndata: text\noptimizer: {kind: adamw, microbatches: 64}\ntraining: {steps: 3}\ncompile: {mode: 'off'}\n"


@pytest.fixture
def spec(tmp_path: Path) -> Path:
    (tmp_path / "dvc.yaml").touch()
    (tmp_path / "a.yaml").write_text(GOOD)
    return tmp_path / "a.yaml"


def test_a_good_spec_holds_line_by_line(spec: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert verify([spec], json=False) == 0
    *lines, verdict = capsys.readouterr().out.splitlines()
    assert lines == [f"ok      {claim}" for claim in (*checks.GRADIENT, *checks.OPTIMIZER)]
    assert verdict.startswith("a: all 12 checks hold, ")
    assert verdict.endswith("; nothing is compiled (compile.mode: off)")


@pytest.fixture
def one_that_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(experiment: object) -> None:
        raise CheckFailed("the slope is 2, expected 1")

    def stops(experiment: object) -> None:
        raise RuntimeError("out of memory\n and more")

    monkeypatch.setattr(checks, "GRADIENT", {"is right": fails, "fits": stops})
    monkeypatch.setattr(checks, "OPTIMIZER", {"is deterministic": checks.OPTIMIZER["is deterministic"]})


@pytest.mark.usefixtures("one_that_fails")
def test_a_check_that_fails_says_what_and_the_others_go_on(spec: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert verify([spec], json=False) == 1
    out = capsys.readouterr().out.splitlines()
    assert out[:3] == [
        "failed  is right: the slope is 2, expected 1",
        "failed  fits: stopped by RuntimeError: out of memory",
        "ok      is deterministic",
    ]
    assert out[3].startswith("a: 2 of 3 checks failed")


@pytest.mark.usefixtures("one_that_fails")
def test_json_for_machines(spec: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert verify([spec], sets=["training.seed=3"], json=True) == 1
    told = json.loads(capsys.readouterr().out)
    assert told["ok"] is False
    assert [finding["check"] for finding in told["checks"] if finding["ok"]] == ["is deterministic"]
    assert {"check", "ok", "detail", "seconds"} == set(told["checks"][0])


def test_a_bad_spec_is_refused_before_anything_is_checked(spec: Path) -> None:
    with pytest.raises(SpecError, match="seed"):
        verify([spec], sets=["training.sede=3"], json=False)


def test_a_rule_that_owns_nothing_is_refused_too(spec: Path) -> None:
    spec.write_text(GOOD.replace("microbatches: 64", "rules: [{match: nothing, use: adamw}]"))
    with pytest.raises(SpecError, match="owns no parameter"):
        verify([spec], json=False)


@pytest.mark.usefixtures("one_that_fails")
def test_several_specs_are_checked_one_after_another(spec: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other = spec.with_name("b.yaml")
    other.write_text(GOOD.replace("name: a", "name: b"))
    assert verify([spec, other], json=False) == 1
    out = capsys.readouterr().out.splitlines()
    assert [line.partition(":")[0] for line in out if "checks" in line] == ["a", "b"]
    assert verify([spec, other], json=True) == 1
    told = json.loads(capsys.readouterr().out)
    assert told["ok"] is False
    assert [Path(one["spec"]).name for one in told["specs"]] == ["a.yaml", "b.yaml"]
    assert {"spec", "ok", "checks"} == set(told["specs"][1])
    other.write_text("name: b\n")
    with pytest.raises(SpecError, match="data"):
        verify([spec, other], json=False)
    assert not capsys.readouterr().out


def test_every_bad_spec_is_named_at_once(spec: Path) -> None:
    other = spec.with_name("b.yaml")
    spec.write_text(GOOD.replace("steps: 3", "step: 3"))
    other.write_text(GOOD.replace("kind: adamw", "kind: adam"))
    with pytest.raises(SpecError, match=r"(?s)a\.yaml.*b\.yaml"):
        verify([spec, other], json=False)


def test_a_later_spec_with_idle_rules_is_refused_before_the_first_is_checked(
    spec: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = spec.with_name("b.yaml")
    other.write_text(GOOD.replace("microbatches: 64", "rules: [{match: nothing, use: adamw}]"))
    with pytest.raises(SpecError, match="owns no parameter"):
        verify([spec, other], json=False)
    assert not capsys.readouterr().out
