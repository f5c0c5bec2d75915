from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ruamel.yaml import YAML

from gnflow.spec.canonical import digest, format_lines, format_resolved, make_tree
from gnflow.spec.experiment import Experiment
from gnflow.spec.load import load
from gnflow.spec.source import parse
from gnflow.spec.tree import Source, make_plain

# What people and filesystems may put in a text, reserved words and lookalikes of other types included.
TEXTS = st.one_of(
    st.text(st.characters(codec="utf-8"), min_size=1, max_size=20),
    st.sampled_from(
        ["null", "true", "no", "~", "1", "1e-6", "1:30", "010", "1_0", "2026-11-24", "a: b", "a #b", "- a"]
    ),
    st.sampled_from(
        ["*x", "&x", "!x", "%x", "@x", "'", '"', "\\", "\n", "\t", "\x07", "\u2028", "\ufeff", "\U0001f600"]
    ),
)
RATES = st.floats(min_value=0, exclude_min=True, allow_nan=False, allow_infinity=False)
FRACTIONS = st.floats(min_value=0, max_value=1, exclude_max=True)
COUNTS = st.integers(min_value=1, max_value=2**40)

# Those that may name a file of the project; the others are refused, which is another test's.
PATHS = TEXTS.filter(lambda text: "\0" not in text and not text.startswith("/") and ".." not in text)

SOURCES = st.one_of(
    st.just("shakespeare"),
    st.fixed_dictionaries(
        {"kind": st.just("files"), "paths": st.lists(PATHS, min_size=1, max_size=3)},
        optional={"held_out": st.lists(PATHS, max_size=2), "column": TEXTS},
    ),
    st.fixed_dictionaries({"kind": st.just("huggingface"), "path": PATHS}, optional={"name": st.none() | TEXTS}),
)
RULES = st.lists(
    st.fixed_dictionaries(
        {
            "match": st.sampled_from(["embedding", r"blocks\.[0-9]+\.", ".*", "a|b: #"]),
            "use": st.sampled_from(["adamw", "muon"]),
        }
    ),
    max_size=2,
)
ADAMW = st.fixed_dictionaries(
    {"kind": st.just("adamw")},
    optional={"learning_rate": RATES, "betas": st.tuples(FRACTIONS, FRACTIONS).map(list), "rules": RULES},
)
MUON = st.fixed_dictionaries(
    {"kind": st.just("muon")},
    optional={"momentum": FRACTIONS, "nesterov": st.booleans(), "clip": st.none() | RATES, "microbatches": COUNTS},
)
GAUSS_NEWTON = st.fixed_dictionaries(
    {"kind": st.just("gauss_newton")},
    optional={"inner": ADAMW | MUON, "inner_steps": COUNTS, "search": st.sampled_from(["none", "geometric"])},
)
EXPERIMENTS = st.fixed_dictionaries(
    {
        "name": st.from_regex(r"[A-Za-z0-9][A-Za-z0-9_.\-]{0,20}", fullmatch=True),
        "data": st.fixed_dictionaries({"source": SOURCES}),
        "optimizer": ADAMW | MUON | GAUSS_NEWTON,
        "training": st.fixed_dictionaries({"tokens": RATES}, optional={"seed": st.integers(0, 2**32 - 1)}),
    },
    optional={"tracking": st.fixed_dictionaries({"kind": st.just("mlflow"), "experiment": TEXTS})},
).map(Experiment.model_validate)


@settings(max_examples=150, deadline=None)
@given(EXPERIMENTS)
def test_a_resolved_spec_says_the_same(experiment: Experiment) -> None:
    text = format_resolved(experiment)
    problems: list[object] = []
    again = Experiment.model_validate(make_plain(parse(Source("experiment.yaml", text), problems)))  # type: ignore[arg-type]
    assert not problems
    assert again == experiment
    assert format_resolved(again) == text
    assert digest(again) == digest(experiment)


SCALARS = st.one_of(TEXTS, st.none(), st.booleans(), st.integers(), RATES)
KEYS = st.from_regex(r"[a-z_]{1,8}", fullmatch=True).filter(lambda key: key not in ("no", "null", "true", "yes"))
TREES = st.dictionaries(
    KEYS,
    st.recursive(SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3)),
    min_size=1,
    max_size=4,
)


@settings(max_examples=150, deadline=None)
@given(TREES)
def test_any_tree_of_plain_values_is_read_as_it_was(tree: dict[str, object]) -> None:
    assert YAML(typ="safe", pure=True).load("\n".join(format_lines(tree))) == tree


def written(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def test_a_resolved_spec_loads_and_has_no_default_left(tmp_path: Path) -> None:
    first = load(written(tmp_path / "a.yaml", "name: a\ndata: text\noptimizer: gauss_newton\ntraining: {steps: 3}\n"))
    second = load(written(tmp_path / "experiment.yaml", format_resolved(first.experiment)))
    assert second.experiment == first.experiment
    assert {origin.kind for origin in second.origins.values()} == {"file"}


def test_the_digest_does_not_depend_on_how_the_spec_is_written(tmp_path: Path) -> None:
    one = written(
        tmp_path / "one.yaml",
        "name: a\ndata: text\noptimizer: {kind: adamw, learning_rate: 1e-3, eps: 1e-8}\n"
        "training: {steps: 3, tokens: null}\n",
    )
    two = written(
        tmp_path / "two.yaml",
        "# a comment\ntraining:\n  steps: 3\noptimizer:\n  learning_rate: 0.001\n  kind: adamw\n"
        "data: {kind: text, context: 64}\nmetrics: [loss, cost, update_norms]\nname: 'a'\n",
    )
    assert digest(load(one).experiment) == digest(load(two).experiment)


def test_the_digest_depends_on_every_value(tmp_path: Path) -> None:
    path = written(tmp_path / "a.yaml", "name: a\ndata: text\noptimizer: muon\ntraining: {steps: 3}\n")
    sets = ["name=b", "optimizer.scale=match_rms", "training.seed=1", "metrics.0.microbatches=17", "data.context=65"]
    digests = {digest(load(path, [*each]).experiment) for each in ([], *([one] for one in sets))}
    assert len(digests) == len(sets) + 1


def test_the_digest_is_the_same_forever() -> None:
    assert digest({"b": [1, 2.5, None, True], "a": "é"}) == digest({"a": "é", "b": [1, 2.5, None, True]})
    assert digest({"a": 1}) == "015abd7f5cc57a2dd94b7590f04ad8084273905ee33ec5cebeae62276a97f862"  # sha256 of {"a":1}


def test_the_digest_has_no_place_for_what_is_not_a_number() -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        digest({"a": float("nan")})


def test_keys_that_came_later_are_in_no_digest_at_their_default() -> None:
    """Runs, trials and cached weights of specs from before such a key stay theirs."""
    base = {"name": "a", "data": "text", "optimizer": "muon", "training": {"steps": 3}}
    one = Experiment.model_validate(base)
    before = make_tree(one)
    later: list[tuple[str, str, object]] = [
        ("training", "on_nonfinite", "skip"),
        ("training", "spike", {"above": 4.0}),
        ("training", "max_undone", 3),
        ("training", "average", {"kind": "ema"}),
        ("training", "shares", 2),
        ("model", "attention_scale", 0.12),
        ("model", "biases", True),
        ("model", "rope_fraction", 0.5),
        ("model", "matrix_std", 0.5),
        ("model", "zero_outputs", True),
        ("model", "embedding_norm", True),
        ("model", "logit_cap", 15.0),
        ("compile", "attention", "flash"),
        ("compile", "activations", 64),
        ("compile", "update", "parts"),
        ("optimizer", "second_moment", "after"),
        ("optimizer", "second_beta", 0.9),
        ("optimizer", "eps", 1e-6),
        ("optimizer", "equalize", "rows"),
        ("optimizer", "dtype", "float32"),
        ("optimizer", "hyperball", True),
        ("optimizer", "unbiased", True),
    ]
    for section, key, _ in later:
        del before[section][key]  # type: ignore[union-attr, arg-type, call-overload, index]
        assert f"  {key}: " in format_resolved(one)
    for key in ("schedule", "clip", "nesterov"):
        del before["optimizer"]["others"][key]  # type: ignore[union-attr, arg-type, call-overload, index]
    del before["optimizer"]["schedule"]["warmup_from"]  # type: ignore[union-attr, arg-type, call-overload, index]
    del before["data"]["source"]["held_out_fraction"]  # type: ignore[union-attr, arg-type, call-overload, index]
    assert digest(one) == digest(before)
    scheduled = {"optimizer": {"kind": "muon", "others": {"schedule": "linear"}}}
    assert digest(Experiment.model_validate(base | scheduled)) != digest(one)
    for section, key, value in later:
        given = {"training": {"steps": 3}, "optimizer": {"kind": "muon"}, "model": {"kind": "decoder"}}.get(section, {})
        assert digest(Experiment.model_validate(base | {section: given | {key: value}})) != digest(one)


def test_the_memory_of_a_fold_is_in_no_digest_at_its_default() -> None:
    base = {"name": "a", "data": "text", "training": {"steps": 3}}
    folds = [{"kind": "ml_fop_soap"}, {"kind": "ml_fop_soap", "memory": 0.0}, {"kind": "ml_fop_soap", "memory": 0.9}]
    plain, none, some = (Experiment.model_validate(base | {"optimizer": fold}) for fold in folds)
    assert "memory" not in plain.model_dump(mode="json")["optimizer"]
    assert digest(plain) == digest(none) != digest(some)


@pytest.mark.parametrize(
    ("source", "later"),
    [
        ({"kind": "files", "paths": ["a.txt"]}, {"encoding": "latin-1"}),
        ({"kind": "shakespeare"}, {"held_out_fraction": 0.1}),
        ({"kind": "huggingface", "path": "a"}, {"held_out_fraction": 0.1}),
        ({"kind": "tokens", "train": "a.npy", "held_out": "b.npy", "vocabulary": 9}, {"held_out_fraction": 0.1}),
        (
            {"kind": "package", "distribution": "a", "version": "1", "paths": ["a"], "held_out": ["b"]},
            {"held_out_fraction": 0.1, "encoding": "latin-1"},
        ),
    ],
)
def test_keys_of_sources_that_came_later_are_in_no_digest_at_their_default(
    source: dict[str, object], later: dict[str, object]
) -> None:
    base = {"name": "a", "optimizer": "muon", "training": {"steps": 3}}
    one = Experiment.model_validate(base | {"data": {"source": source}})
    dumped = one.model_dump(mode="json")["data"]["source"]
    assert not set(later) & set(dumped)
    for key, value in later.items():
        assert digest(Experiment.model_validate(base | {"data": {"source": source | {key: value}}})) != digest(one)
