"""Every code block of README and docs is run, or as much of it as can be without a cluster or a network."""

import json
import re
import shlex
import shutil
import tomllib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
import typer.main
from blocks import BLOCKS, DOCUMENTS, ROOT, Block, in_language
from mirroring import mlflow_warnings
from tiny import tiny, write_project
from typer.core import TyperGroup

from gnflow.cli import app
from gnflow.spec.canonical import format_value
from gnflow.spec.load import load

NOT_OURS = (
    "pip", "pip-audit", "git", "cd", "cp", "mkdir", "source", "touch", "export", "python", "torchrun",
    "lm_eval_env/bin/pip", "lm_eval_env/bin/python",
)  # fmt: skip
LANGUAGES = {"python", "yaml", "toml", "json", "sh", "text"}
# What a part of a spec leaves out.
REST = {"name": "part", "data": "text", "optimizer": "adamw", "training": "{steps: 3}"}
REST_OF_A_STUDY = {
    "name": "part",
    "arms": "{adamw: ../../specs/published/adamw_cosine.yaml}",
    "seeds": "[1]",
    "budget": "{tokens: 2.0e6}",
}
HISTORY = {"CHANGELOG.md", "docs/decisions.md"}  # what they speak of may be gone


def named(block: Block) -> str:
    return block.name


def test_every_block_says_its_language() -> None:
    assert len(BLOCKS) > 15
    assert {block.name: block.language for block in BLOCKS if block.language not in LANGUAGES} == {}


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project in which the names that the documents use stand for something that takes a second."""
    root = write_project(tmp_path / "project")
    spec = {**tiny("gauss_newton", "full_gn"), "tracking": "mlflow"}
    (root / "specs").mkdir()
    for name in ("specs/full_gn.yaml", "my_run.yaml"):
        (root / name).write_text("\n".join(f"{key}: {format_value(value)}" for key, value in spec.items()) + "\n")
    monkeypatch.chdir(root)
    return root


@mlflow_warnings
@pytest.mark.filterwarnings("ignore:.*Any type hint is inferred as AnyType")  # of MLflow's own classes
@pytest.mark.parametrize("document", sorted({block.document for block in in_language("python")}))
def test_python_runs_from_the_first_block_of_a_document_to_the_last(document: str, project: Path) -> None:
    blocks = [block for block in in_language("python") if block.document == document]
    for block in in_language("yaml"):
        if block.document == document and (name := re.match(r"# (\S+\.yaml)\n", block.text)):
            (project / name[1]).write_text(block.text)
    scope: dict[str, object] = {"__name__": "documents"}
    for block in blocks:
        text = block.text
        if "models:/m-..." in text:
            text = text.replace("models:/m-...", _logged_model(project))
            scope["ids"] = torch.zeros((2, 16), dtype=torch.int64).numpy()
        exec(compile("\n" * block.line + text, str(ROOT / document), "exec"), scope)


def _logged_model(project: Path) -> str:
    from mlflow import MlflowClient, set_tracking_uri

    from gnflow.commands.run import run
    from gnflow.track.location import find_tracking_uri
    from gnflow.workspace import Workspace

    assert run(Path("my_run.yaml")) == 0
    uri = find_tracking_uri(Workspace(project))
    set_tracking_uri(uri)
    client = MlflowClient(uri)
    [model] = client.search_logged_models([each.experiment_id for each in client.search_experiments()])
    return f"models:/{model.model_id}"


@pytest.mark.parametrize("block", in_language("yaml"), ids=named)
def test_yaml_is_a_spec_a_study_or_a_part_of_a_spec(block: Block, tmp_path: Path) -> None:
    keys = re.findall(r"^(\w+):", block.text, flags=re.MULTILINE)
    (tmp_path / "dvc.yaml").write_text("stages: {}\n")
    (tmp_path / "models" / "small").mkdir(parents=True)
    (tmp_path / "models" / "small" / "config.json").write_text('{"model_type": "llama", "vocab_size": 257}')
    if {"arms", "budget", "scales"} & set(keys):
        from gnflow.study.design.load import load as load_study

        text = block.text if "arms" in keys else _complete(block.text, keys, REST_OF_A_STUDY)
        folder = tmp_path / "pipelines" / re.findall(r"^name: (\w+)", text, flags=re.MULTILINE)[0]
        folder.mkdir(parents=True)
        shutil.copytree(ROOT / "specs", tmp_path / "specs")
        (folder / "study.yaml").write_text(text)
        assert load_study(folder).study.arms
        return
    path = tmp_path / "spec.yaml"
    path.write_text(_complete(block.text, keys, REST))
    assert load(path).experiment


def _complete(text: str, keys: Sequence[str], rest: Mapping[str, str]) -> str:
    return "\n".join([text, *(f"{key}: {value}" for key, value in rest.items() if key not in keys)])


def test_toml_and_json_can_be_read() -> None:
    for block in in_language("toml"):
        assert tomllib.loads(block.text), block.name
    for block in in_language("json"):
        assert json.loads(block.text), block.name


def _gnflow(words: Sequence[str]) -> None:
    """The verb exists, and takes these options and as many arguments."""
    command: Any = typer.main.get_command(app)
    rest = list(words)
    while isinstance(command, TyperGroup) and rest and not rest[0].startswith("-"):
        verb = rest.pop(0)
        assert verb in command.commands, verb
        command = command.commands[verb]
    try:
        command.make_context(" ".join(words), rest, resilient_parsing=isinstance(command, TyperGroup)).close()
    except Exception as error:
        raise AssertionError(f"gnflow {' '.join(words)}: {error}") from error


def _dvc(words: Sequence[str]) -> None:
    from dvc.cli.parser import get_main_parser

    get_main_parser().parse_args(list(words))


def _make(words: Sequence[str]) -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE))
    assert {word for word in words if "=" not in word} <= targets


def _not_ours(words: Sequence[str]) -> None:
    """Not checked: programs that are not of this project, which may be absent."""


PROGRAMS: dict[str, Callable[[Sequence[str]], None]] = {
    "gnflow": _gnflow, "dvc": _dvc, "make": _make,
    **dict.fromkeys(NOT_OURS, _not_ours),
}  # fmt: skip


def commands(text: str) -> Iterator[list[str]]:
    """The words of each command, without comments, variables and what joins it to the next."""
    for line in text.replace("\\\n", " ").splitlines():
        for part in re.split(r"&&|\|\||[|;]", re.sub(r"(^|\s)#.*", "", line)):
            words = shlex.split(part)
            while words and re.fullmatch(r"\w+=.*", words[0]):
                words.pop(0)
            if words:
                yield words


@pytest.mark.parametrize("block", in_language("sh"), ids=named)
def test_every_command_exists_with_the_options_and_arguments_shown(block: Block) -> None:
    found = list(commands(block.text))
    assert found
    for program, *words in found:
        assert program in PROGRAMS, f"{program}: a program that this test knows nothing of"
        PROGRAMS[program](words)


@pytest.mark.parametrize("path", [path for path in DOCUMENTS if str(path.relative_to(ROOT)) not in HISTORY], ids=str)
def test_every_verb_and_option_within_a_sentence_exists(path: Path) -> None:
    prose = re.sub(r"^```.*?^```$", "", path.read_text(), flags=re.MULTILINE | re.DOTALL)
    for shown in re.findall(r"`gnflow ([a-z][^`]*)`", prose):
        command: Any = typer.main.get_command(app)
        words = shown.split()
        while isinstance(command, TyperGroup) and words:
            verb = words.pop(0)
            if verb == "...":
                break
            assert verb in command.commands, shown
            command = command.commands[verb]
        known = {option for parameter in command.params for option in parameter.opts}
        assert {word for word in words if word.startswith("-")} <= known, shown


def test_a_wrong_command_would_be_found() -> None:
    for wrong in (
        "gnflow rnu x.yaml",
        "gnflow run x.yaml --no-such",
        "gnflow study plna x",
        "gnflow compare",
        "make rnu",
    ):
        [[program, *words]] = commands(wrong)
        with pytest.raises(AssertionError):
            PROGRAMS[program](words)
    with pytest.raises(Exception, match="parser error"):
        _dvc(["rerpo"])
