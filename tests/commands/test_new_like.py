"""`gnflow new --like` and `--study`: what is written is valid, and what has no counterpart is named."""

import json
from pathlib import Path

import pytest
import tiny

from gnflow.commands.new import Refusal, write_like
from gnflow.commands.new_study import write_study
from gnflow.errors import SpecError
from gnflow.spec.like.draft import Unreadable
from gnflow.spec.load import load
from gnflow.study.design.load import load as load_study

CHARACTERS = """
import os
out_dir = 'out-shakespeare-char'
eval_interval = 250
eval_iters = 200
wandb_log = True
wandb_project = 'shakespeare-char'
wandb_run_name = 'mini-gpt'
dataset = 'shakespeare_char'
gradient_accumulation_steps = 2 * 2
batch_size = 64
block_size = 256
n_layer = 6
n_head = 6
n_embd = 64 * n_head
dropout = 0.2
learning_rate = 1e-3
max_iters = 5000
lr_decay_iters = max_iters
min_lr = 1e-4
beta2 = 0.99
warmup_iters: int = 100
compile = False
seed = os.getpid()
Path = open('executed', 'w')
"""
LLAMA = {
    "model_type": "llama", "hidden_size": 64, "intermediate_size": 172, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 2, "rms_norm_eps": 1e-5, "rope_theta": 5e5, "hidden_act": "silu",
    "vocab_size": 300, "max_position_embeddings": 4096, "attention_dropout": 0.1, "sliding_window": 512,
    "tie_word_embeddings": True, "rope_scaling": {"rope_type": "yarn"}, "bos_token_id": 1,
}  # fmt: skip


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tiny.write_project(tmp_path))
    return tmp_path


def test_a_configuration_of_nanogpt_becomes_a_spec_and_is_not_run(project: Path, capsys) -> None:
    (project / "config.py").write_text(CHARACTERS)
    assert write_like(None, "nanogpt", Path("config.py")) == 0
    made = load("mini-gpt.yaml").experiment
    assert (made.model.layers, made.model.width, made.model.heads, made.data.context) == (6, 384, 6, 256)
    assert (made.model.tie_embeddings, made.model.feedforward, made.data.vocabulary) == (True, "gelu", 65)
    assert made.data.source.train == ("data/shakespeare_char/train.npy",)
    assert (made.optimizer.learning_rate, made.optimizer.betas, made.optimizer.clip) == (1e-3, (0.9, 0.99), 1.0)
    assert (made.optimizer.weight_decay, made.optimizer.microbatches) == (0.1, 4)  # the first is train.py's default
    schedule = made.optimizer.schedule
    assert (schedule.kind, schedule.warmup, schedule.final) == ("cosine", 100, 0.1)
    assert (made.training.steps, made.training.rows, made.training.evaluate_every) == (5000, 64, 250)
    assert (made.metrics[0].microbatches, made.compile.mode) == (200, "off")
    assert (made.tracking.kind, made.tracking.experiment) == ("wandb", "shakespeare-char")
    text, said = (project / "mini-gpt.yaml").read_text(), capsys.readouterr().out
    assert max(map(len, text.splitlines())) <= 120
    for lack in (
        "dropout = 0.2: gnflow has no dropout",
        "learned positions",
        "seed = os.getpid(): known only when the",
    ):
        assert lack in said
        assert f"#   {lack}" in text
    assert not (project / "executed").exists()


def test_a_config_json_becomes_a_decoder_of_its_sizes(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = project / "models" / "small"
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(LLAMA))
    (folder / "tokenizer.json").write_text("{}")
    (folder / "model.safetensors").write_text("")
    assert write_like("mine", "huggingface", Path("models/small")) == 0
    made = load("mine.yaml").experiment
    assert made.model.model_dump() == {
        "kind": "decoder", "layers": 2, "width": 64, "heads": 4, "key_value_heads": 2, "feedforward": "swiglu",
        "hidden": 172, "qk_norm": "none", "tie_embeddings": True, "rope_theta": 5e5, "norm_epsilon": 1e-5,
    }  # fmt: skip
    assert made.data.tokenizer.model_dump()["path"] == "models/small/tokenizer.json"
    assert (made.data.vocabulary, made.data.context) == (300, 1024)
    said = capsys.readouterr().out
    for lack in ("rope_scaling", "attention_dropout = 0.1", "sliding_window = 512", "the weights", "data, optimizer,"):
        assert f"  {lack}" in said
    assert "bos_token_id" not in said
    (folder / "config.json").write_text(
        '{"model_type": "gpt2", "n_embd": 32, "n_head": 2, "n_layer": 1, "n_inner": null}'
    )
    assert write_like("old", "huggingface", Path("models/small")) == 0
    assert load("old.yaml").experiment.model.tie_embeddings


@pytest.mark.parametrize(
    ("tool", "name", "content", "error", "problem"),
    [
        ("nanogpt", "config.py", "n_layer = = 3", Unreadable, r"config\.py:1 is not Python"),
        ("nanogpt", "config.py", "n_layer = 9 ** 9 ** 9\nn_embd = 7", SpecError, "12 heads do not split width 7"),
        ("nanogpt", "config.py", "dataset = '../../etc'", SpecError, "leads outside the project"),
        ("nanogpt", "config.py", "wandb_run_name = '../x'", Refusal, "cannot name a run"),
        ("nanogpt", "gone.py", None, Unreadable, "No such file"),
        ("huggingface", "config.json", "[]", Unreadable, "is a list; expected an object"),
        ("huggingface", "config.json", "[" * 99999, Unreadable, "is not JSON"),
        ("megatron", "config.py", "", Refusal, "no tool `megatron` .* expected nanogpt or huggingface"),
    ],
)
def test_settings_that_cannot_be_used_are_refused_and_leave_nothing(
    project: Path, tool: str, name: str, content: str | None, error: type[Exception], problem: str
) -> None:
    if content is not None:
        (project / name).write_text(content)
    before = sorted(project.iterdir())
    with pytest.raises(error, match=problem):
        write_like(None, tool, project if tool == "huggingface" else project / name)
    assert sorted(project.iterdir()) == before


def test_a_study_is_written_that_plans(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert write_study("first", optimizer="muon") == 0
    design = load_study(project / "pipelines" / "first")
    assert [arm.name for arm in design.arms] == ["muon", "adamw"]
    assert [(len(arm.trials), len(arm.runs)) for arm in design.arms] == [(2, 3), (2, 3)]
    assert "gnflow study plan pipelines/first" in capsys.readouterr().out
    with pytest.raises(Refusal, match="first exists already"):
        write_study("first")
