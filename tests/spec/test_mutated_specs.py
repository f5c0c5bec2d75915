"""Hundreds of shipped specs with one thing wrong, and files that are no spec at all: refused, located, quickly."""

import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gnflow.spec.experiment import Experiment
from gnflow.spec.load import format_resolved, load
from gnflow.spec.problems import Problem, SpecProblems

SPECS = Path(__file__).parents[2] / "specs"
SHIPPED = ["full_gn", "muon", "ml_fop_soap_janus"]
SECONDS, MEGABYTES = 2.0, 300

# Whatever was there before, none of these may stand in its place.
WRONG_VALUES = [
    ".nan", "-.inf", "1e999", "99999999999999999999", "0x1" + "0" * 40, "!!python/object:os.system x", "!x y",
    "*nowhere",
    "{nonsense: 1}", "[[[]]]", "'\\u202e'", '"\\ud800"', '"\\q"', "[1, 2", "{a: 1", "'open", "2026-11-25", "1_000",
    "010", "https://me:pw@host/x", "@x", "a: b", "&a [*a]", "x\ty", "\x07", "\u2028",
]  # fmt: skip
# Names that no mapping has.
WRONG_KEYS: list[Callable[[str], str]] = [
    lambda key: key + "x", lambda key: key.upper(), lambda key: f"{key}\N{ZERO WIDTH SPACE}",
    lambda key: key[::-1] + "_", lambda key: key + "\N{CYRILLIC SMALL LETTER IE}", lambda key: f'"{key}\\n"',
    lambda key: f"<<{key}", lambda key: f"[{key}]",
]  # fmt: skip


def leaves(tree: object, path: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    match tree:
        case dict() if tree:
            for key, value in tree.items():
                yield from leaves(value, (*path, key))
        case list() if tree:
            for index, value in enumerate(tree):
                yield from leaves(value, (*path, index))
        case _:
            yield path


def written(tree: object, wrong: tuple[str | int, ...], value: str | None, key: str | None) -> str:
    """JSON, which YAML holds; at `wrong` stands `value` as it is, or another `key`."""
    match tree:
        case dict() if tree:
            items = []
            for name, inner in tree.items():
                here = bool(wrong) and wrong[0] == name
                named = key if here and len(wrong) == 1 and key is not None else f'"{name}"'
                below = written(inner, wrong[1:], value, key) if here else written(inner, (), None, None)
                items.append(f"{named}: {below}")
            return "{" + ", ".join(items) + "}"
        case list() if tree:
            inside = (
                written(item, wrong[1:], value, key) if wrong and wrong[0] == index else written(item, (), None, None)
                for index, item in enumerate(tree)
            )
            return "[" + ", ".join(inside) + "]"
        case _ if value is not None and not wrong:
            return value
        case _:
            return json.dumps(tree)


def mutants() -> list[tuple[str, str]]:
    """Every value of some shipped specs wrong in one way, every key in another; the ways are drawn once and for all."""
    drawn = random.Random(0)
    found = []
    for name in SHIPPED:
        tree = load(SPECS / f"{name}.yaml").experiment.model_dump(mode="json")
        for path in leaves(tree):
            value = drawn.choice(WRONG_VALUES)
            found.append((f"{name}:{path}={value!r}", written(tree, path, value, None)))
            if isinstance(path[-1], str):
                key = drawn.choice(WRONG_KEYS)(path[-1])
                found.append((f"{name}:{path} named {key!r}", written(tree, path, None, key)))
    return found


@pytest.fixture
def spec(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "dvc.yaml").touch()
    monkeypatch.chdir(tmp_path)
    return tmp_path / "spec.yaml"


def test_the_trees_are_written_as_they_are(spec: Path) -> None:
    for name in SHIPPED:
        experiment = load(SPECS / f"{name}.yaml").experiment
        spec.write_text(written(experiment.model_dump(mode="json"), (), None, None))
        assert format_resolved(load(spec).experiment) == format_resolved(experiment)


def problems_of(spec: Path) -> tuple[Problem, ...]:
    """None for a spec that is taken."""
    try:
        assert isinstance(load(spec).experiment, Experiment)
    except SpecProblems as found:
        return found.problems
    return ()


def test_each_of_hundreds_of_mistakes_is_located(spec: Path) -> None:
    corpus = mutants()
    assert len(corpus) >= 300
    slowest = 0.0
    for what, text in corpus:
        spec.write_text(text, encoding="utf-8")
        begun = time.process_time()
        found = problems_of(spec)
        slowest = max(slowest, time.process_time() - begun)
        assert found, f"taken: {what}"
        for problem in found:
            assert problem.origin.line >= 1, what
            assert problem.origin.column >= 1, what
            assert str(problem).startswith(f"{problem.origin}: "), what
            assert "^" in problem.quote(), what
    assert slowest < SECONDS


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_bytes_changed_anywhere_are_a_spec_or_a_located_mistake(spec: Path, data: st.DataObject) -> None:
    content = bytearray((SPECS / f"{data.draw(st.sampled_from(SHIPPED))}.yaml").read_bytes())
    content = content.replace(b"extends", b"# ")
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, len(content)))
        content[place : place + data.draw(st.integers(0, 8))] = data.draw(st.binary(max_size=8))
    spec.write_bytes(content)
    assert all(str(problem).startswith("spec.yaml") for problem in problems_of(spec))


def project_of(root: Path, files: dict[str, bytes]) -> Path:
    for name, content in files.items():
        (root / name).write_bytes(content)
    return root / "spec.yaml"


GOOD = b"name: a\ndata: text\noptimizer: adamw\ntraining: {steps: 3}\n"
BOMB = b"".join(b"a%d: &a%d [%s]\n" % (i, i, b", ".join([b"*a%d" % (i - 1)] * 9)) for i in range(1, 60))
LADDER = {f"b{i}.yaml": b"# " + b"x" * 900_000 + b"\nnope: 1\n" for i in range(4)}
HEAVY: dict[str, tuple[bytes, str]] = {
    "100 MB": (b"a: 1\n", "spec.yaml: larger than 1,000,000 bytes"),
    "alias bomb": (b"a0: &a0 [x]\n" + BOMB, "spec.yaml:6:10: a spec may have at most 20,000 values"),
    "deep list": (b"a: " + b"[" * 999_000, "spec.yaml:1:35: values are nested more than 32"),
    "deep mapping": (b"{a: " * 240_000, "spec.yaml:1:129: values are nested more than 32"),
    "deep indentation": (b"".join(b" " * i + b"a:\n" for i in range(1300)), "spec.yaml:33:33: values are nested"),
    "many keys": (b"".join(b"k%d: 1\n" % i for i in range(90_000)), "spec.yaml:10000:8: a spec may have at most"),
    "unknown keys": (GOOD + b"".join(b"k%d: 1\n" % i for i in range(9_000)), "spec.yaml:5:1: unknown key `k0`"),
    "one key": (GOOD + b"name: a\n" * 9_000, "spec.yaml:5:1: key `name` is given twice"),
    "a long value": (b"name: " + b"a" * 990_000, "spec.yaml:1:7: expected at most 100 letters"),
    "a long number": (GOOD + b"tuning: {trials: " + b"9" * 990_000 + b"}", "spec.yaml:5:18: this whole number"),
    "quotes": (b"name: " + b"'" * 990_001, "spec.yaml:1:7: a quote that opens here"),
    "binary": (random.Random(1).randbytes(990_000), "spec.yaml:1:1: byte 0xf5 is not UTF-8"),
    "NULs": (bytes(990_000), "spec.yaml:1:1: character U+0000"),
    "large files": (b"extends: [b0.yaml, b1.yaml, b2.yaml, b3.yaml]\n" + GOOD, "spec.yaml:1:29: the files before"),
    "a circle": (b"extends: c.yaml\n" + GOOD, "c.yaml:1:11: a file cannot extend itself"),
    "a long name": (b"extends: " + b"b" * 5000 + b"\n" + GOOD, "spec.yaml:1:10: `bbb"),
}  # fmt: skip

# The peak of this program alone: what getrusage says includes the process that started it.
MEASURED = """
import sys, time
from pathlib import Path
from gnflow.cli import main

try:
    main()
finally:
    [peak] = [line.split()[1] for line in Path("/proc/self/status").open() if line.startswith("VmHWM")]
    print(time.process_time(), peak, file=sys.stderr)
"""


@pytest.mark.parametrize("what", HEAVY)
def test_what_would_take_long_or_much_memory_is_refused_quickly_and_in_little(what: str, tmp_path: Path) -> None:
    content, said = HEAVY[what]
    (tmp_path / "spec.yaml").write_bytes(content)
    (tmp_path / "c.yaml").write_text("extends: [c.yaml, spec.yaml]\n")
    if what == "large files":
        for name, text in LADDER.items():
            (tmp_path / name).write_bytes(text)
    if what == "100 MB":
        os.truncate(tmp_path / "spec.yaml", 100_000_000)
    command = [sys.executable, "-c", MEASURED, "check", "spec.yaml"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 3, done.stderr
    assert any(line.startswith(said) for line in done.stdout.splitlines()), done.stdout[:1000]
    assert len(done.stdout) < 50_000
    assert "Traceback" not in done.stdout + done.stderr
    seconds, kilobytes = map(float, done.stderr.split())
    assert seconds < SECONDS
    assert kilobytes < MEGABYTES * 1024
