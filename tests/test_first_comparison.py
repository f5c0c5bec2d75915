"""What docs/first_comparison.md shows leads to a study that can be planned, and its optimizer to a loss that falls."""

import re
import shlex
from pathlib import Path

import pytest
import tiny
import torch
from typer.testing import CliRunner

from gnflow import compile as compile_plan
from gnflow.cli.specs import app
from gnflow.compiler.plan import plan
from gnflow.spec.load import load
from gnflow.study.design.load import load as load_study

PAGE = (Path(__file__).parents[1] / "docs" / "first_comparison.md").read_text()
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```$", PAGE, flags=re.MULTILINE | re.DOTALL)
SMALL = ["model.layers=1", "model.width=16", "model.heads=2", "data.tokenizer=bytes", "data.context=16",
         "training.rows=4", "training.steps=8", "training.start=scratch", "compile.mode=off"]  # fmt: skip


def test_the_walk_leads_to_a_study_of_an_optimizer_that_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = tiny.write_project(tmp_path / "first")
    (root / "text.txt").rename(root / "mine.txt")
    monkeypatch.chdir(root)
    [code] = [text for kind, text in BLOCKS if kind == "python"]
    [names] = [text for kind, text in BLOCKS if kind == "toml"]
    (root / "my_optimizer.py").write_text(code)
    (root / "pyproject.toml").write_text(names)
    commands = [shlex.split(line, comments=True) for kind, text in BLOCKS if kind == "sh" for line in text.splitlines()]
    assert len(commands) == 9
    [new] = [words for words in commands if words[:2] == ["gnflow", "new"]]
    done = CliRunner().invoke(app, new[1:])
    assert done.exit_code == 0, done.output

    folder = root / "pipelines" / "against_muon"
    assert {word for words in commands for word in words if word.startswith("pipelines/")} == {
        "pipelines/against_muon", "pipelines/against_muon/evened.yaml", "pipelines/against_muon/dvc.yaml"
    }  # fmt: skip
    assert set(load_study(folder).study.arms) == {"evened", "muon"}
    ours, theirs = (load(folder / f"{arm}.yaml").experiment.optimizer for arm in ("evened", "muon"))
    assert (ours.microbatches, ours.others) == (theirs.microbatches, theirs.others)

    planned = plan(load(folder / "evened.yaml", SMALL).experiment)
    assert {row.method for row in planned.parameters} == {"evened", "adamw"}
    program = compile_plan(planned)
    state, losses = program.init(program.initial()), []
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randint(97, 122, (planned.microbatches, 4, 17), generator=generator)
    for _ in range(8):
        state, metrics = program.step(state, tokens)
        losses.append(float(metrics["loss/train"]))
    assert losses[-1] < losses[0] - 0.3
