"""The answer in one sentence, the matrix, and the groups of many arms."""

from pathlib import Path

import pytest
from arms import run

from gnflow.study import figures
from gnflow.study.comparison import Comparison, compare
from gnflow.study.groups import group_arms
from gnflow.study.lead import tell_answer
from gnflow.study.matrix import make_matrix


def of_arms(root: Path, **needed: list[int | None]) -> Comparison:
    momenta = {name: {"kind": "muon", "momentum": 0.5 + 0.01 * place} for place, name in enumerate(needed)}
    runs = [
        run(root / name / f"seed_{seed}", steps, seed, momenta[name])
        for name, counts in needed.items()
        for seed, steps in enumerate(counts)
    ]
    return compare(runs, [3.4])


def test_the_answer_is_one_sentence_however_many_arms_there_are(tmp_path: Path) -> None:
    two = of_arms(tmp_path / "two", fast=[4, 5, 4], slow=[12, 14, 13])
    assert tell_answer(two).startswith("fast needs 3.0x fewer steps than slow to 3.40 (95 % CI ")
    four = of_arms(tmp_path / "four", fast=[4, 5, 4], slow=[12, 14, 13], slower=[22, 23, 24], none=[None] * 3)
    said = tell_answer(four)
    assert said.startswith("Of 4 arms, fast needs the fewest steps to 3.40, 3.0x fewer than slow, the next (95 % CI ")
    assert said.endswith("3 of the other 3 certainly need more than fast.")
    close = of_arms(tmp_path / "close", a=[4, 6, 5], b=[5, 4, 7])
    assert tell_answer(close).startswith("It is not decided whether a or b needs the fewest steps to 3.40 (95 % CI ")
    assert tell_answer(of_arms(tmp_path / "none", a=[None], b=[None])) == "No run has reached 3.40."


def test_the_matrix_is_ordered_and_marks_what_is_not_decided(tmp_path: Path) -> None:
    matrix = make_matrix(of_arms(tmp_path, b=[5, 4, 7], worst=[None] * 3, slow=[12, 14, 13], a=[4, 6, 5]))
    assert matrix is not None
    assert [row.arm for row in matrix.rows] == ["b", "a", "slow", "worst"]
    beside = {row.arm: row.cells[0].beside for row in matrix.rows}
    assert beside["b"] == "1"
    assert beside["a"].endswith(" ?")
    assert "?" not in beside["slow"]
    assert beside["worst"].startswith("≥ ")
    assert (matrix.rows[-1].reached, matrix.rows[-1].cells[0].value) == ("0/3", "missed")


@pytest.mark.parametrize(
    ("names", "groups"),
    [
        (["a_1", "a_2"], ["a_1", "a_2"]),
        ([f"{m}_{k}k" for m in ("a", "b_c") for k in range(4)], ["a"] * 4 + ["b_c"] * 4),
        ([f"{m}_x{i}_{k}" for m in "ab" for i in range(4) for k in range(2)], ["a"] * 8 + ["b"] * 8),
        ([f"m{i}" for i in range(9)], [f"m{i}" for i in range(9)]),
    ],
)
def test_many_arms_are_grouped_by_the_words_of_their_names(names: list[str], groups: list[str]) -> None:
    members = group_arms(names, 7)
    assert [members[name].group for name in names] == groups


def test_a_column_has_one_unit() -> None:
    assert figures.choose_unit([275e9, 2.82e12]) == (1e9, "G")
    assert [figures.format_digits(value / 1e9) for value in (275e9, 2.82e12)] == ["275", "2,820"]
    assert figures.choose_time_unit([30.0, 125.0]) == (1.0, "s")
