"""A run that starts from the weights of another one: what does not fit is refused, and said."""

import hashlib
import json
from pathlib import Path

import multimodal
import pytest
import torch
from safetensors.torch import save_file
from tiny import experiment, tiny, write_project

from gnflow.commands.plan import plan
from gnflow.commands.show import show
from gnflow.errors import SpecError
from gnflow.spec.experiment import Experiment
from gnflow.train.journal import JOURNAL
from gnflow.train.journal import read as read_journal
from gnflow.train.loop import run
from gnflow.train.origin import KEY, find_origin
from gnflow.train.provenance import read_digest
from gnflow.workspace import Workspace

START = {"kind": "checkpoint", "path": "runs/first/model"}


def images(name: str, model: dict[str, object] | None = None, data: dict[str, object] | None = None) -> Experiment:
    tree = multimodal.experiment("janus", {"kind": "adamw"}, name=name, model=model or {}, metrics=["cost"])
    training = tree.training.model_dump() | {"steps": 1, "start": "scratch" if name == "first" else START}
    section = tree.data.model_dump() | (data or {})
    return Experiment.model_validate(tree.model_dump() | {"training": training, "data": section})


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    workspace = Workspace(tmp_path_factory.mktemp("project"))
    run(images("first", data={"mix": {"understanding": 0, "text": 1, "generation": 0}}), workspace)
    return workspace


def refused(given: Experiment, workspace: Workspace) -> str:
    with pytest.raises(SpecError) as caught:
        run(given, workspace)
    return str(caught.value)


def test_another_mix_and_context_go_on_from_the_same_ids(project: Workspace) -> None:
    assert run(images("second", data={"context": 60, "prompt_drop": 0.0}), project).summary["status"] == "complete"


def test_weights_of_another_shape_are_listed(project: Workspace) -> None:
    message = refused(images("wider", {"code_width": 5}), project)
    assert message.startswith(f"training.start.path: {project.root}/runs/first/model/params.safetensors does not fit")
    assert "generation.codes.weight: expected (8, 5), found (8, 8)" in message


@pytest.mark.parametrize(
    ("data", "key"),
    [
        ({"text": {"kind": "files", "paths": ["text.txt"], "held_out_fraction": 0.2}}, "data.text"),
        ({"variant": 1}, "data.variant"),
        ({"image_tokenizer": {"kind": "vq", "codebook": 8, "iterations": 1}}, "data.image_tokenizer"),
    ],
    ids=["text", "variant", "codebook"],
)
def test_ids_that_stand_for_other_tokens_are_refused_although_all_shapes_fit(
    project: Workspace, data: dict[str, object], key: str
) -> None:
    write_project(project.root)
    message = refused(images(f"other_{key.partition('.')[2]}", data=data), project)
    assert "the ids of" in message
    assert f"{key} must be as they are in" in message


def test_a_run_names_the_weights_that_it_starts_from_and_says_when_they_have_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    workspace = Workspace(write_project(tmp_path))
    monkeypatch.chdir(tmp_path)
    first = run(experiment(name="first", steps=1, start="scratch"), workspace)
    file = first.directory / "model" / "params.safetensors"
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    assert read_digest(first.directory, KEY) is None

    second = experiment(name="second", steps=1, start=START)
    there = run(second, workspace).directory
    assert read_digest(there, KEY) == digest
    assert show(there, json=False) == 0
    assert f"starts from    weights with SHA-256 {digest}" in capsys.readouterr().out

    (tmp_path / "second.yaml").write_text(json.dumps(tiny(name="second", steps=1, start=START)))
    assert plan(tmp_path / "second.yaml", sets=[], json=False) == 0
    assert f"it starts from the weights in runs/first/model (SHA-256 {digest[:12]})" in capsys.readouterr().out

    file.write_bytes(file.read_bytes() + b" ")
    said: list[str] = []
    run(experiment(name="second", steps=2, start=START), workspace, extend=True, report=said.append)
    [warning] = [line for line in said if "the weights in runs/first/model" in line]
    assert f"had SHA-256 {digest[:12]} when this run began, and are now" in warning
    assert read_digest(there, KEY) == digest  # that of the beginning
    [event] = [event for event in read_journal(there / JOURNAL).events if event.name == "weights_changed"]
    assert event.message in warning


def test_the_digest_of_shards_covers_each_of_them(tmp_path: Path) -> None:
    workspace = Workspace(write_project(tmp_path))
    folder = tmp_path / "sharded"
    folder.mkdir()
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": "1.st", "b": "2.st"}}))
    found = []
    for content in (b"2", b"3"):
        (folder / "1.st").write_bytes(b"1")
        (folder / "2.st").write_bytes(content)
        found.append(find_origin(experiment(start={"kind": "checkpoint", "path": "sharded"}), workspace))
    (folder / "2.st").unlink()
    found.append(find_origin(experiment(start={"kind": "checkpoint", "path": "sharded"}), workspace))
    assert len({each.sha256 for each in found if each}) == 3
    assert str(found[-1]) == "sharded (which cannot be read)"


def test_a_start_that_is_not_there_says_what_to_run(tmp_path: Path) -> None:
    message = refused(experiment(start=START), Workspace(write_project(tmp_path)))
    assert "training.start.path: " in message
    assert "cannot be read" in message
    assert message.endswith("run the spec that writes it first")


def test_bytes_mean_the_same_in_any_text(tmp_path: Path) -> None:
    workspace = Workspace(write_project(tmp_path))
    run(experiment(name="first", steps=1, start="scratch"), workspace)
    (tmp_path / "other.txt").write_text((tmp_path / "text.txt").read_text().upper())
    tree = tiny(name="second", steps=1, start=START)
    tree["data"] = {**tree["data"], "source": {"kind": "files", "paths": ["other.txt"]}}  # type: ignore[dict-item]
    assert run(Experiment.model_validate(tree), workspace).summary["steps"] == 1


def hugging_face(project: Workspace) -> Path:
    """A directory as `save_pretrained` leaves it."""
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(vocab_size=257, hidden_size=16, intermediate_size=64, num_hidden_layers=1,
                         num_attention_heads=2)  # fmt: skip
    directory = project.root / "llama"
    LlamaForCausalLM(config).save_pretrained(directory)
    return directory


@pytest.mark.parametrize("name", ["", "/model.safetensors"], ids=["directory", "file"])
def test_a_hugging_face_model_is_recognised_in_two_lines_with_a_remedy(project: Workspace, name: str) -> None:
    write_project(project.root)
    hugging_face(project)
    message = refused(experiment(name="from_llama", start={"kind": "checkpoint", "path": f"llama{name}"}), project)
    assert "holds a model of another tool (config.json)" in message
    assert message.count("\n") == 1
    assert "found nothing" not in message
    assert "name the `model` directory of a run of gnflow" in message


def test_the_directory_of_a_run_is_led_to_its_weights(project: Workspace) -> None:
    write_project(project.root)
    message = refused(experiment(name="from_run", start={"kind": "checkpoint", "path": "runs/first"}), project)
    assert message.endswith("runs/first/model\nname that directory")


def test_weights_of_nothing_like_this_model_are_one_line(project: Workspace) -> None:
    write_project(project.root)
    save_file({"a": torch.zeros(3), "b": torch.zeros(2)}, project.root / "other.safetensors")
    message = refused(experiment(name="other", start={"kind": "checkpoint", "path": "other.safetensors"}), project)
    assert "has none of the" in message
    assert "it has a, b" in message
    assert message.count("\n") == 1


def test_of_many_weights_that_do_not_fit_the_first_are_listed(project: Workspace) -> None:
    write_project(project.root)
    wide = {**tiny(name="wide"), "model": {"kind": "decoder", "layers": 2, "width": 32, "heads": 2}}
    spec = Experiment.model_validate(wide | {"training": {**wide["training"], "start": "scratch", "steps": 1}})  # type: ignore[dict-item]
    run(spec, project)
    message = refused(experiment(name="narrow", start={"kind": "checkpoint", "path": "runs/wide/model"}), project)
    assert message.count("expected (") == 8
    assert " more of " in message
