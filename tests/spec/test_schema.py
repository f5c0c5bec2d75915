import json
from pathlib import Path

import pytest
from jsonschema import Draft202012Validator

from gnflow.spec.schema import make_schema
from gnflow.spec.source import parse, read
from gnflow.spec.tree import Source, make_plain

ROOT = Path(__file__).parents[2]
SPECS = sorted((ROOT / "specs").rglob("*.yaml"))
VALIDATOR = Draft202012Validator(make_schema())

WHOLE = "name: a\ndata: text\noptimizer: {kind: gauss_newton, inner: muon, search: none}\ntraining: {steps: 3}\n"


def mistakes(text: str) -> list[str]:
    tree = make_plain(parse(Source("spec.yaml", text), []))
    return [error.message for error in VALIDATOR.iter_errors(tree)]


def test_it_is_a_schema() -> None:
    Draft202012Validator.check_schema(make_schema())
    assert make_schema()["$schema"] == "https://json-schema.org/draft/2020-12/schema"


def test_the_committed_schema_is_the_one_of_this_grammar() -> None:
    committed = json.loads((ROOT / "specs" / "schema.json").read_text("utf-8"))
    assert committed == make_schema(), "run `gnflow schema -o specs/schema.json`"


@pytest.mark.parametrize("path", SPECS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_shipped_spec_passes_and_names_the_schema(path: Path) -> None:
    tree = make_plain(parse(read(path, path.name), []))
    assert not list(VALIDATOR.iter_errors(tree))
    first = path.read_text("utf-8").splitlines()[0]
    modeline, _, named = first.partition("=")
    assert modeline == "# yaml-language-server: $schema"
    assert (path.parent / named).resolve() == ROOT / "specs" / "schema.json"


@pytest.mark.parametrize("path", SPECS, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_misspelt_key_in_a_shipped_spec_is_refused(path: Path) -> None:
    tree = make_plain(parse(read(path, path.name), []))
    assert isinstance(tree, dict)
    for section in [key for key, value in tree.items() if isinstance(value, dict)]:
        assert list(VALIDATOR.iter_errors({**tree, section: {**tree[section], "sede": 1}})), section  # type: ignore[dict-item]
    assert list(VALIDATOR.iter_errors({**tree, "trainig": {}}))


@pytest.mark.parametrize(
    "text",
    [
        WHOLE,
        WHOLE.replace("{kind: gauss_newton, inner: muon, search: none}", "adamw"),
        WHOLE + "tracking: none\nmodel: decoder\nmetrics: [loss, {kind: cost}]\ncompile: {mode: off}\n",
        WHOLE.replace("data: text", "data: {tokenizer: null, source: {kind: files, paths: [a]}}"),
        WHOLE.replace("steps: 3", "steps: 3, target: {at_most: 3}, start: {kind: warmup, steps: 3}"),
        # Parts, because they stand on others.
        "extends: base.yaml\n",
        "extends: [base.yaml]\nname: b\n",
        "extends: base.yaml\noptimizer: {inner_steps: 8, inner: {learning_rate: 1e-3}}\n",
        "extends: base.yaml\ndata: {source: files, tokenizer: {vocabulary: 300}}\ntraining: {target: {}}\n",
        "training: {rows: 3}\nmodel: {layers: 3}\n",
    ],
)
def test_what_is_right_passes(text: str) -> None:
    assert not mistakes(text)


@pytest.mark.parametrize(
    "text",
    [
        "extends: base.yaml\ntraining: {sede: 3}\n",
        "extends: base.yaml\noptimizer: {inner: {ns_stepz: 1}}\n",
        "extends: base.yaml\noptimizer: {kind: muon, inner_steps: 8}\n",
        "extends: base.yaml\noptimizer: adam\n",
        "extends: 3\n",
        "extends: [base.yaml, '']\n",
        WHOLE.replace("data: text", "data: {source: files}"),
        WHOLE.replace("data: text", "data: {source: {kind: files}}"),
        WHOLE.replace("inner: muon", "inner: {learning_rate: 1e-3}"),
        WHOLE.replace("inner: muon", "inner: sgd"),
        "name: a\n",
        "training: {sede: 3}\n",
    ],
)
def test_what_is_wrong_is_refused(text: str) -> None:
    assert mistakes(text)


def test_the_schema_and_the_loader_agree_about_every_bad_part(tmp_path: Path) -> None:
    """But for what spans keys or is about the world, for which JSON Schema has no words, and numbers such as 64.0."""
    blocks = (Path(__file__).with_name("bad_parts.txt").read_text("utf-8")).strip().split("\n\n")
    beyond = (
        "do not split", "do not divide", "give either", "ready tokens", "declared twice", "has none here",
        "regular expression", "no schedule of its own", "`12.0`; write",
        "do not tile", "reads images as codes", "before its caption", "tasks of the mix",
        "needs data of kind", "needs a model of that kind", "every part is frozen", "needs multimodal data",
        "minimises a quadratic", "give at most that many", "needs the count over all solves", "its own damping",
        "at least as many iterations", "lose their conjugacy", "does not linearise", "needs more digits",
        "needs second derivatives", "keeps the norm of every matrix", "only a model of the loss",
        "longer than the", "would shift the schedule", "inner steps, which are a check",
        "needs its exponent", "has no exponent", "got `1.0`",
        "leads outside the project", "a file cannot have", "a password or an access token", "the name of another one",
    )  # fmt: skip
    rest = {"name": "trial", "data": "text", "optimizer": "adamw", "training": {"steps": 3}}
    seen = 0
    for block in blocks:
        part, _, sentence = block.partition("\n=> ")
        if part.startswith("#") or any(words in sentence for words in beyond):
            continue
        tree = make_plain(parse(Source("spec.yaml", part.replace("«", "")), []))
        assert isinstance(tree, dict)
        assert list(VALIDATOR.iter_errors(rest | tree)), part
        seen += 1
    assert seen > 40


def test_an_editor_shows_the_help_and_the_default_of_every_key() -> None:
    definitions = make_schema()["$defs"]
    for name, definition in definitions.items():
        for key, body in definition.get("properties", {}).items():
            assert key == "kind" or body["description"], (name, key)
    assert definitions["Muon"]["properties"]["ns_steps"]["default"] == 5
    assert definitions["Muon"]["properties"]["ns_steps"]["description"] == "Number of Newton-Schulz iterations."
