"""What the README says is what happens."""

import re
from pathlib import Path

import pytest
import torch
import typer.main

import gnflow
from gnflow.cli import app
from gnflow.errors import SpecError
from gnflow.spec.load import load

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"^```(\w*)\n(.*?)^```$", README, flags=re.MULTILINE | re.DOTALL)
SHOWN_ERROR = next(text for kind, text in BLOCKS if not kind and text.startswith("my_run.yaml:"))


def blocks(kind: str) -> list[str]:
    return [text for found, text in BLOCKS if found == kind]


def test_every_verb_it_uses_exists_and_every_option_too() -> None:
    commands = typer.main.get_command(app).commands  # type: ignore[attr-defined]
    used = re.findall(r"(?:^|`)gnflow ([a-z]+)([^`#\n]*)", README, flags=re.MULTILINE)
    assert {verb for verb, _ in used} >= {"check", "plan", "run", "explain", "schema", "compare", "ui", "doctor"}
    for verb, rest in used:
        known = {option for parameter in commands[verb].params for option in parameter.opts}
        assert set(re.findall(r"(?<=\s)--?[a-z][a-z-]*", rest)) <= known, verb


def test_the_spec_it_shows_is_valid(tmp_path: Path) -> None:
    [text] = blocks("yaml")
    (tmp_path / "my_run.yaml").write_text(text)
    assert load(tmp_path / "my_run.yaml").experiment.training.target is not None


def test_the_error_it_shows_is_the_one_that_is_printed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    [text] = blocks("yaml")
    for right, wrong in re.findall(r"^ +\d+ \| ( +(\w+): .*)$", SHOWN_ERROR, flags=re.MULTILINE):
        text = re.sub(rf"^ +{wrong}: .*$", right, text, flags=re.MULTILINE)
    (tmp_path / "my_run.yaml").write_text(text)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SpecError) as caught:
        load(Path("my_run.yaml"))
    assert str(caught.value).strip() == SHOWN_ERROR.strip()


def test_the_library_calls_it_shows_exist() -> None:
    whole, parts = blocks("python")
    for name in re.findall(r"gnflow\.(\w+)\(", whole):
        assert callable(getattr(gnflow, name))
    scope = {"params": {"w": torch.ones(4, 3)}, "gradients": {"w": torch.randn(4, 3)}}
    exec(compile(parts, "README.md", "exec"), scope)
    assert scope["updates"]["w"].shape == (4, 3)


def test_every_file_it_links_to_exists() -> None:
    assert not [link for link in re.findall(r"\]\((?!http)([^)#]+)\)", README) if not (ROOT / link).exists()]


def test_every_make_target_it_names_exists() -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE))
    assert set(re.findall(r"(?:^|`)make ([a-z]+)", README, flags=re.MULTILINE)) <= targets
    assert {"setup", "run", "repro", "test", "check", "gpu", "clean", "help"} <= targets
