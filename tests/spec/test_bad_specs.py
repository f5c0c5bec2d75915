"""Every way to get a spec wrong: where the caret is, what is said, what is suggested.

In each text the mark « stands just before the place that must be named; it is taken out before the spec is read.
"""

from collections.abc import Callable
from pathlib import Path

import pytest

from gnflow.spec.load import load
from gnflow.spec.problems import SpecProblems

Write = Callable[[str, str], Path]

REST = {
    "name": "name: trial",
    "data": "data: text",
    "optimizer": "optimizer: adamw",
    "training": "training: {steps: 3}",
}

BAD_PARTS = [
    tuple(block.split("\n=> "))
    for block in Path(__file__).with_name("bad_parts.txt").read_text("utf-8").strip().split("\n\n")
    if not block.startswith("#")
]

# Where the whole text is given.
SYNTAX = [
    ("a:\n«\tb: 1\n", "a tab is not allowed here; indent with spaces"),
    ("a: 1\nb: x«\ty\n", "a tab is not allowed here; indent with spaces"),
    ("a: «!x 1\n", "tags such as `!x` are not allowed in a spec"),
    (
        "a: «!!python/name:os.system\n",
        "tags such as `tag:yaml.org,2002:python/name:os.system` are not allowed in a spec",
    ),
    ("«!x\na: 1\n", "tags such as `!x` are not allowed in a spec"),
    ("«%YAML 1.1\n---\na: 1\n", "a line begins with `%`; YAML directives are not allowed in a spec"),
    ("a: 1\n«---\nb: 2\n", "a second document begins here; a file must contain only one spec"),
    ("a: 1\nb: 2\n«a: 3\n", "key `a` is given twice; first on line 1"),
    ("«1: 2\n", "expected a name as key, got `1`"),
    ("«true: 2\n", "expected a name as key, got `true`"),
    ("? «[a]\n: 2\n", "expected a name as key, got a list or a mapping"),
    ("a: &x {b: 1}\n«<<: *x\n", "`<<` is not part of YAML 1.2; use `extends` at the top of the file"),
    ("a: «.nan\n", "expected a finite number, got `.nan`"),
    ("a: «-.inf\n", "expected a finite number, got `-.inf`"),
    ("a: «1e999\n", "`1e999` is too large for a number"),
    ("a: «99999999999999999999\n", "this whole number does not fit in 64 bits"),
    ("a: «2026-11-24\n", "`2026-11-24` is a date to some readers of YAML; put it in quotes"),
    ("a: «1_000\n", "`1_000` is a number to some readers of YAML, text to others; remove `_`"),
    ("a: «010\n", "`010` is a number in base 8 to some readers of YAML; remove the leading zero"),
    ("a: «1:30\n", "`1:30` is a number in base 60 to some readers of YAML; put it in quotes"),
    ("a: «*nope\n", "`*nope` names no anchor before it"),
    ("a: &x [«*x]\n", "`*x` holds itself"),
    ("a: «[1,\nb: 2\n", "a `[` that opens here is never closed"),
    ("a: [1, 2\nb«: 3\nc: []\n", "expected `,` or `]`, found `:`; the `[` on line 1 is still open"),
    ("a: «'x\n", "a quote that opens here is never closed"),
    ("a: 'it'«s'\n", "unexpected text after the end of a value"),
    ("a: b«: c\n", "a second `:` on one line; put text that holds `: ` in quotes"),
    ("a:\n  b: 1\n   c«: 2\n", "wrong indentation"),
    ("a: 1\n«- b\n", "wrong indentation, or a list item where a key was expected"),
    ("a: 1\n«b\nc: 2\n", "expected `:` and a value after this key"),
    ("a: «@x\n", "text that begins with `@` must be in quotes"),
    ('a: "\\«q"\n', "`\\q` means nothing in double quotes; single quotes take text as it is"),
    ('a: «"\\ud800"\n', "an incomplete character (a surrogate escape)"),
    ("a: [b]«]\n", "`]` was never opened"),
    ("a: 1 # «\u2028\n", "character U+2028 is not allowed in a spec"),
    ("a: «\u202eb\n", "character U+202E is not allowed in a spec"),
    ("«- a\n- b\n", "expected a mapping of keys to values, got a list"),
    ("a«:1\nb:2\n", "write a space after the colon"),
    ("a«:1\nb: 2\n", "write a space after the colon"),
    ("a:\n  b«:1\n  c: 2\n", "write a space after the colon"),
    ("a:\n  b:«\u00a01\n  c: 2\n", "found the character U+00A0 (no-break space); write a space"),
    ("a:«\u00a01\nb: 2\n", "found the character U+00A0 (no-break space); write a space"),
    ("a:«\u00a01\n", "found the character U+00A0 (no-break space); write a space"),
    ("a:\n«\u3000\u3000b: 2\n  c: 1\n", "found the character U+3000 (ideographic space); write a space"),
    ("a«\uff1a 1\nb: 2\n", "found the character U+FF1A (fullwidth colon); write `:`"),
    ("a: b\nc: «\u201cd: e\u201d\n", 'found the character U+201C (left double quotation mark); write `"`'),
    (
        'a: "\u2013\u00a0x"\nb: {«\uff3b1]}\nc: 2\n',
        "found the character U+FF3B (fullwidth left square bracket); write `[`",
    ),
]


def found_in(path: Path) -> list[tuple[int, int, str]]:
    with pytest.raises(SpecProblems) as raised:
        load(path)
    assert raised.value.exit_code == 3
    return [(problem.origin.line, problem.origin.column, problem.sentence) for problem in raised.value.problems]


def unmarked(text: str) -> tuple[str, int, int]:
    before = text[: text.index("«")]
    return text.replace("«", ""), before.count("\n") + 1, len(before.rpartition("\n")[2]) + 1


def completed(part: str) -> str:
    given = {line.partition(":")[0] for line in part.replace("«", "").splitlines()}
    return "\n".join([part, *(line for key, line in REST.items() if key not in given), ""])


@pytest.mark.parametrize(("part", "sentence"), BAD_PARTS)
def test_a_wrong_part_is_named_where_it_stands(part: str, sentence: str, write: Write) -> None:
    text, line, column = unmarked(completed(part))
    assert found_in(write("specs/bad.yaml", text)) == [(line, column, sentence)]


@pytest.mark.parametrize(("text", "sentence"), SYNTAX)
def test_what_is_not_a_spec_at_all_is_named_where_it_stands(text: str, sentence: str, write: Write) -> None:
    text, line, column = unmarked(text)
    assert (line, column, sentence) in found_in(write("specs/bad.yaml", text))


def test_missing_keys_of_the_whole_spec_point_at_its_beginning(write: Write) -> None:
    found = found_in(write("specs/bad.yaml", "# A comment.\nname: trial\n"))
    assert [(line, column) for line, column, _ in found] == [(2, 1)] * 3
    assert [sentence.partition(";")[0] for *_, sentence in found] == [
        "key `data` is missing: The data that the model is trained and evaluated on",
        "key `optimizer` is missing: The optimizer of the run",
        "key `training` is missing: Length of the run, batch size, device, starting weights and checkpoints",
    ]


def test_a_misspelt_required_key_is_one_problem_not_two(write: Write) -> None:
    path = write("specs/bad.yaml", "name: a\ndata: text\noptimizer: adamw\ntrainig: {steps: 3}\n")
    assert found_in(path) == [(4, 1, "unknown key `trainig`; did you mean `training`?")]


@pytest.mark.parametrize(
    "part",
    [
        "training: {steps: «.nan}",
        "optimizer: {kind: «.nan}",
        "optimizer: «!x {kind: adamw}",
        "model: {width: «1_0, heads: 4}",
        "metrics: [loss, «!x cost]",
        "training: {steps: 3, tokens: «.inf}",
    ],
)
def test_one_mistake_is_one_problem(part: str, write: Write) -> None:
    text, line, column = unmarked(completed(part))
    assert [found[:2] for found in found_in(write("specs/bad.yaml", text))] == [(line, column)]


def test_a_kind_given_alone_that_needs_more_is_pointed_at(write: Write) -> None:
    path = write("specs/bad.yaml", "data: {source: tokens}\nname: trial\noptimizer: adamw\ntraining: {steps: 3}\n")
    found = found_in(path)
    assert {(line, column) for line, column, _ in found} == {(1, 16)}
    assert [sentence.split()[1] for *_, sentence in found] == ["`train`", "`vocabulary`"]


def test_all_problems_come_at_once_in_order_with_excerpts(write: Write) -> None:
    path = write(
        "specs/bad.yaml",
        "name: my run\n"
        "model: {layers: twelve, lr: .nan}\n"
        "data: text\n"
        "optimizer:\n"
        "  kind: muon\n"
        "  weight_decya: 0.1\n"
        "training: {steps: 3}\n",
    )
    with pytest.raises(SpecProblems) as raised:
        load(path)
    assert str(raised.value) == (
        "specs/bad.yaml:1:7: expected at most 100 letters, digits, `_`, `.` and `-`, a letter or digit first, "
        "got the text `my run`\n"
        "    1 | name: my run\n"
        "      |       ^^^^^^\n\n"
        "specs/bad.yaml:2:17: expected a whole number of at least 1, got the text `twelve`\n"
        "    2 | model: {layers: twelve, lr: .nan}\n"
        "      |                 ^^^^^^\n\n"
        "specs/bad.yaml:2:29: expected a finite number, got `.nan`\n"
        "    2 | model: {layers: twelve, lr: .nan}\n"
        "      |                             ^^^^\n\n"
        "specs/bad.yaml:6:3: unknown key `weight_decya` in `optimizer` (muon); did you mean `weight_decay`?\n"
        "    6 |   weight_decya: 0.1\n"
        "      |   ^^^^^^^^^^^^\n\n"
        "4 problems"
    )


def test_no_word_of_pydantic_or_of_the_parser_reaches_the_user(write: Write) -> None:
    for part, _ in BAD_PARTS:
        said = " ".join(sentence for *_, sentence in found_in(write("specs/bad.yaml", unmarked(completed(part))[0])))
        assert not {"Input", "pydantic", "Extra", "Tuple", "Field", "discriminator"} & set(said.split())


def test_json_names_file_line_column_key_and_suggestion(write: Write) -> None:
    path = write("specs/bad.yaml", "name: a\ndata: text\noptimizer: {kind: adamw, bets: 1}\ntraining: {steps: 3}\n")
    with pytest.raises(SpecProblems) as raised:
        load(path)
    (problem,) = raised.value.problems
    assert problem.to_json() == {
        "origin": {"kind": "file", "file": "specs/bad.yaml", "line": 3, "column": 26},
        "key": "optimizer.bets",
        "message": "unknown key `bets` in `optimizer` (adamw)",
        "suggestion": "betas",
    }
