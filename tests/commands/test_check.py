import json
from pathlib import Path

import pytest

from gnflow.commands.check import check

GOOD = "name: a\ndata: text\noptimizer: adamw\ntraining: {steps: 3}\n"


@pytest.fixture
def specs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "dvc.yaml").touch()
    (tmp_path / "good.yaml").write_text(GOOD)
    (tmp_path / "bad.yaml").write_text(GOOD.replace("steps: 3", "steps: 0, sede: 1"))
    return tmp_path


def test_a_valid_spec_is_ok(specs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert check([Path("good.yaml")], json=False) == 0
    assert capsys.readouterr().out == "good.yaml: ok\n"


def test_every_problem_of_every_spec_is_printed(specs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert check([Path("good.yaml"), Path("bad.yaml"), Path("missing.yaml")], json=False) == 3
    assert capsys.readouterr().out == (
        "bad.yaml:4:19: expected a whole number of at least 1, got `0`\n"
        "    4 | training: {steps: 0, sede: 1}\n"
        "      |                   ^\n\n"
        "bad.yaml:4:22: unknown key `sede` in `training`; did you mean `seed`?\n"
        "    4 | training: {steps: 0, sede: 1}\n"
        "      |                      ^^^^\n\n"
        "missing.yaml: no such file\n\n"
        "good.yaml: ok\nbad.yaml: 2 problems\nmissing.yaml: 1 problem\n"
    )


def test_a_problem_of_a_shared_base_is_printed_once(specs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("one", "two"):
        (specs / f"{name}.yaml").write_text(f"extends: bad.yaml\nname: {name}\ntraining: {{steps: 3}}\n")
    assert check([Path("one.yaml"), Path("two.yaml")], json=False) == 3
    out = capsys.readouterr().out
    assert out.count("unknown key `sede`") == 1
    assert out.endswith("one.yaml: 1 problem\ntwo.yaml: 1 problem\n")


def test_settings_are_checked_too(specs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert check([Path("good.yaml")], sets=["training.seed=3"], json=False) == 0
    assert check([Path("good.yaml")], sets=["training.sede=3"], json=False) == 3
    assert "--set training.sede: unknown key `sede`" in capsys.readouterr().out


def test_json_for_machines(specs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert check([Path("good.yaml"), Path("bad.yaml")], json=True) == 3
    said = json.loads(capsys.readouterr().out)
    assert said["ok"] is False
    assert said["specs"][0] == {"spec": "good.yaml", "ok": True, "problems": []}
    assert said["specs"][1]["problems"][1] == {
        "origin": {"kind": "file", "file": "bad.yaml", "line": 4, "column": 22},
        "key": "training.sede",
        "message": "unknown key `sede` in `training`",
        "suggestion": "seed",
    }
