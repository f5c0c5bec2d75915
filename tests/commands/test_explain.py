import json
from pathlib import Path

import pytest

from gnflow.commands.explain import explain
from gnflow.spec.explain import UnknownKey
from gnflow.spec.problems import SpecProblems


@pytest.fixture
def spec(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "dvc.yaml").touch()
    (tmp_path / "base.yaml").write_text(
        "data: text\noptimizer: {kind: gauss_newton, inner: muon}\ntraining: {rows: 16}\n"
    )
    path = tmp_path / "mine.yaml"
    path.write_text("extends: base.yaml\nname: mine\ntraining:\n  steps: 12\n")
    return path


def test_a_value_its_unit_meaning_bounds_and_line(spec: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert explain(spec, "training.rows", sets=(), json=False) == 0
    assert capsys.readouterr().out == (
        "training.rows = 16 (sequences)\n"
        "  Number of sequences in one micro-batch.\n"
        "  allowed  a whole number of at least 1\n"
        "  from     base.yaml:3:18\n"
        "               3 | training: {rows: 16}\n"
        "                 |                  ^^\n"
    )


def test_a_default_and_a_setting_say_so(spec: Path, capsys: pytest.CaptureFixture[str]) -> None:
    explain(spec, "training.seed", sets=(), json=False)
    assert capsys.readouterr().out.endswith("  from     default\n")
    explain(spec, "training.seed", sets=["training.seed=7"], json=False)
    out = capsys.readouterr().out
    assert out.startswith("training.seed = 7\n")
    assert "  from     --set training.seed\n           --set | training.seed=7\n" in out


def test_a_choice_lists_its_words_and_null(spec: Path, capsys: pytest.CaptureFixture[str]) -> None:
    explain(spec, "optimizer.inner.scale", sets=(), json=False)
    assert "allowed  `original`, `match_rms` or `spectral`\n" in capsys.readouterr().out
    explain(spec, "optimizer.inner.clip", sets=(), json=False)
    assert "allowed  a number greater than 0, or `null`\n" in capsys.readouterr().out


def test_a_section_is_shown_with_all_inside_it(spec: Path, capsys: pytest.CaptureFixture[str]) -> None:
    explain(spec, "optimizer.inner.others", sets=(), json=False)
    out = capsys.readouterr().out
    assert out.startswith(
        "optimizer.inner.others\n  The method for all other parameters: embedding, head and vectors. Adam with"
    )
    assert "optimizer.inner.others.betas.1        0.95   default\n" in out


def test_without_a_key_everything_is_listed_with_its_place(spec: Path, capsys: pytest.CaptureFixture[str]) -> None:
    explain(spec, None, sets=(), json=False)
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["training.steps", "12", "mine.yaml:4:10"] in rows
    assert ["optimizer.inner.kind", "muon", "base.yaml:2:40"] in rows
    assert ["metrics.1.kind", "cost", "default"] in rows
    assert ["training.target", "null", "default"] in rows


@pytest.mark.parametrize(
    ("key", "said"),
    [
        ("training.row", "unknown key `row` in `training`; did you mean `rows`?"),
        ("trainin", "unknown key `trainin`; did you mean `training`?"),
        ("seed", "unknown key `seed`; it belongs in `training`"),
        (
            "optimizer.ns_steps",
            "unknown key `ns_steps` in `optimizer` (gauss_newton); `ns_steps` belongs to `muon`, `normuon`, "
            "`soap_muon` or `newton_muon`",
        ),
        ("optimizer.inner.lr", "unknown key `lr` in `optimizer.inner` (muon); did you mean `learning_rate`?"),
        ("training.rows.x", "`training.rows` is a single value; it holds no `x`"),
        ("training.target.at_most", "`training.target` is not set; it holds no `at_most`"),
        ("metrics.3", "`metrics` has 3 items, numbered from 0; no `3`"),
        ("metrics.first", "`metrics` has 3 items, numbered from 0; no `first`"),
    ],
)
def test_an_unknown_key_suggests_the_nearest(key: str, said: str, spec: Path) -> None:
    with pytest.raises(UnknownKey) as raised:
        explain(spec, key, sets=(), json=False)
    assert str(raised.value) == said
    assert raised.value.exit_code == 2


def test_json_for_machines(spec: Path, capsys: pytest.CaptureFixture[str]) -> None:
    explain(spec, "training.steps", sets=(), json=True)
    assert json.loads(capsys.readouterr().out) == {
        "key": "training.steps",
        "value": 12,
        "unit": "optimizer steps",
        "help": "Number of optimizer steps. Give either this or `tokens`.",
        "allowed": "a whole number of at least 1, or `null`",
        "origin": {"kind": "file", "file": "mine.yaml", "line": 4, "column": 10},
    }
    explain(spec, "optimizer.inner.others", sets=(), json=True)
    assert json.loads(capsys.readouterr().out)["value"]["betas"] == [0.9, 0.95]
    explain(spec, None, sets=(), json=True)
    rows = json.loads(capsys.readouterr().out)
    assert {row["origin"]["kind"] for row in rows} == {"file", "default"}


def test_a_bad_spec_is_not_explained(spec: Path) -> None:
    with pytest.raises(SpecProblems):
        explain(spec, "name", sets=["training.sede=3"], json=False)
