import random
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gnflow.spec.problems import SpecProblems
from gnflow.spec.source import BYTES, DEPTH, NODES, parse, read
from gnflow.spec.tree import Plain, Source, Table, make_plain


def parsed(text: str) -> Plain:
    problems: list[object] = []
    tree = make_plain(parse(Source("spec.yaml", text), problems))  # type: ignore[arg-type]
    assert not problems
    return tree


def complaint(text: str) -> str:
    with pytest.raises(SpecProblems) as raised:
        parse(Source("spec.yaml", text), [])
    return str(raised.value).splitlines()[0]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("3e-4", 3e-4),
        ("1e3", 1000.0),
        (".5", 0.5),
        ("-1.", -1.0),
        ("12", 12),
        ("+12", 12),
        ("0o17", 15),
        ("0xff", 255),
        ("true", True),
        ("False", False),
        ("null", None),
        ("~", None),
        ("", None),
        ("no", "no"),
        ("on", "on"),
        ("'3'", "3"),
        ('"\\u00e9"', "é"),
        ("é", "é"),
        ("1.2.3", "1.2.3"),
        ("nan", "nan"),
        ("inf", "inf"),
        ("-", "-"),
        ("e3", "e3"),
        ("_1", "_1"),
        ("1e", "1e"),
        ("a#b", "a#b"),
        ("a # b", "a"),
        ("9223372036854775807", 2**63 - 1),
        ("-9223372036854775808", -(2**63)),
    ],
)
def test_scalars_follow_the_core_schema_of_yaml_1_2(text: str, value: object) -> None:
    found = parsed("- " + text if text != "-" else "['-']")
    assert found == [value]
    assert type(found[0]) is type(value)


def test_an_alias_stands_for_the_same_value() -> None:
    assert parsed("a: &x {b: [1, 2]}\nc: *x\n") == {"a": {"b": [1, 2]}, "c": {"b": [1, 2]}}


def test_a_later_anchor_of_the_same_name_takes_over() -> None:
    assert parsed("a: &x 1\nb: *x\nc: &x 2\nd: *x\n") == {"a": 1, "b": 1, "c": 2, "d": 2}


def test_every_key_and_value_knows_its_place() -> None:
    tree = parse(Source("spec.yaml", "a:\n  b: [10, &x 20]\nc: *x\n"), [])
    assert isinstance(tree, Table)
    inner = tree.entries["a"].node
    assert isinstance(inner, Table)
    assert str(tree.entries["a"].origin) == "spec.yaml:1:1"
    assert str(inner.entries["b"].origin) == "spec.yaml:2:3"
    assert [str(item.origin) for item in inner.entries["b"].node.items] == ["spec.yaml:2:7", "spec.yaml:2:11"]  # type: ignore[union-attr]
    assert str(tree.entries["c"].node.origin) == "spec.yaml:3:4"


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_places_do_not_depend_on_line_ends(end: str) -> None:
    assert complaint(f"a: 1{end}b: 2{end}c: *x{end}").startswith("spec.yaml:3:4: ")


def test_columns_count_characters_not_bytes() -> None:
    assert complaint("é漢: *x\n").startswith("spec.yaml:1:5: ")


BILLION_LAUGHS = "a0: &a0 [x, x, x]\n" + "".join(f"a{i}: &a{i} [*a{i - 1}, *a{i - 1}]\n" for i in range(1, 31))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            "[" * (DEPTH + 1) + "]" * (DEPTH + 1),
            f"spec.yaml:1:{DEPTH + 1}: values are nested more than {DEPTH} levels deep",
        ),
        ("a: &a " + "[" * 20 + "]" * 20 + "\nb: " + "[" * 20 + "*a" + "]" * 20, "spec.yaml:2:24: values are nested"),
        ("a: &a 1\nb: [" + "*a," * 65 + "]", "spec.yaml:2:197: a spec may have at most 64 aliases"),
        (
            "[" + "1," * NODES + "]",
            f"spec.yaml:1:{2 * NODES}: a spec may have at most 20,000 values, counted with aliases written out",
        ),
        (BILLION_LAUGHS, "spec.yaml:12:18: a spec may have at most 20,000 values, counted with aliases written out"),
    ],
    ids=["depth", "depth through an alias", "aliases", "values", "values through aliases"],
)
def test_limits_hold_before_anything_is_built(text: str, said: str) -> None:
    assert complaint(text).startswith(said)


def test_the_limits_themselves_are_allowed() -> None:
    parsed("[" * DEPTH + "]" * DEPTH)
    parsed("[" + "1," * (NODES - 2) + "1]")
    parsed("a: &a 1\nb: [" + "*a," * 64 + "]")


@pytest.mark.parametrize("text", ["[" * BYTES, "{" * BYTES, "? " * (BYTES // 2), "a: [" + "*a," * (BYTES // 4)])
def test_an_attack_is_refused_at_once(text: str) -> None:
    begun = time.process_time()
    complaint(text)
    assert time.process_time() - begun < 5


def test_a_large_file_is_refused_before_it_is_read_whole(tmp_path: Path) -> None:
    path = tmp_path / "large.yaml"
    with path.open("wb") as file:
        file.truncate(1 << 40)  # sparse: no memory holds it
    with pytest.raises(SpecProblems, match=r"large.yaml: larger than 1,000,000 bytes"):
        read(path, "large.yaml")


def test_bytes_that_are_not_utf_8_are_located(tmp_path: Path) -> None:
    path = tmp_path / "spec.yaml"
    path.write_bytes("a: é\nb: ".encode() + b"\xff\n")
    with pytest.raises(SpecProblems, match=r"spec.yaml:2:4: byte 0xff is not UTF-8"):
        read(path, "spec.yaml")


def test_a_byte_order_mark_is_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "spec.yaml"
    path.write_bytes(b"\xef\xbb\xbfa: *x\n")
    with pytest.raises(SpecProblems, match=r"spec.yaml:1:4: "):
        parse(read(path, "spec.yaml"), [])


@pytest.mark.parametrize(
    "content", [b"", b"# only a comment\n", b"\n\n", b"a\x00b", b"\x89PNG\r\n\x1a\n", random.Random(0).randbytes(64)]
)
def test_what_is_no_text_is_one_problem(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "spec.yaml"
    path.write_bytes(content)
    with pytest.raises(SpecProblems) as raised:
        parse(read(path, "spec.yaml"), [])
    assert len(raised.value.problems) == 1


YAML_MARKS = st.text(alphabet="ab1: \n-[]{}&*!|>'\"%@`,?#~<.\\\t", max_size=40)


@settings(max_examples=400, deadline=None)
@given(YAML_MARKS)
def test_any_text_is_a_tree_or_a_problem(text: str) -> None:
    source = Source("spec.yaml", text)
    try:
        parse(source, [])
    except SpecProblems as problems:
        for problem in problems.problems:
            assert problem.origin.column >= 0
            assert str(problem)


def test_an_excerpt_keeps_its_caret_under_the_mistake() -> None:
    for text, caret in [
        ("a: *x", "   ^^"),
        ("漢字: *x", "      ^^"),
        ("x" * 200 + ": *x # " + "y" * 50, None),
    ]:
        with pytest.raises(SpecProblems) as raised:
            parse(Source("spec.yaml", text), [])
        line, mark = raised.value.problems[0].quote().splitlines()[1:]
        assert len(line) < 120
        if caret:
            assert mark == "      | " + caret
        else:
            assert line[mark.index("^") :].startswith("*x")


def test_an_excerpt_cannot_command_the_terminal(write: Callable[[str, str], Path]) -> None:
    with pytest.raises(SpecProblems) as raised:
        parse(read(write("spec.yaml", "a: \x1b[31mred\n"), "spec.yaml"), [])
    assert "\x1b" not in str(raised.value)
