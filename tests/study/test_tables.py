import re

import pytest
from rich.cells import cell_len
from rich.console import Console

from gnflow.study.tables import Table

COLUMNS = ("arm", "reached", "steps", "passes", "tokens", "solve", "search", "FLOPs", "time")
ROWS = [
    ("full_gn_with_a_long_name", "3 of 3", "1234567", "13012345", "295k", "262k", "32.8k", "3.14e+13", "12 min 25 s"),
    ("muon", "0 of 3", "missed", "-", "-", "-", "-", "-", "-"),
]


def made():
    found = Table("to loss/held_out <= 3.40", COLUMNS, 1)
    for row in ROWS:
        found.add_row(*row)
    return found


@pytest.mark.parametrize("width", [40, 60, 80, 100, 160])
def test_no_figure_is_cut_and_no_line_is_too_long_at_any_width(width: int) -> None:
    lines = list(made().format_lines(width))
    assert all(cell_len(line) <= width for line in lines)
    words = " ".join(lines)
    assert all(cell in words for cell in (*COLUMNS, *ROWS[0]))


def test_where_there_is_room_a_row_is_one_line() -> None:
    title, header, first, second = made().format_lines(160)
    assert title == "to loss/held_out <= 3.40"
    assert header.split() == list(COLUMNS)
    assert re.split(r"  +", first) == list(ROWS[0])
    assert second.split()[0] == "muon"


def test_what_does_not_fit_follows_below_beside_the_first_column_again() -> None:
    blocks = "\n".join(made().format_lines(80)).split("\n\n")
    assert len(blocks) == 2
    assert [line.split()[0] for line in blocks[1].splitlines()] == ["arm", ROWS[0][0], "muon"]


def test_a_narrow_terminal_gets_whole_figures_too() -> None:
    console = Console(force_terminal=True, width=50, color_system=None, soft_wrap=True)
    with console.capture() as capture:
        console.print(made())
    assert "…" not in capture.get()
    assert "13012345" in capture.get()


def test_every_part_of_a_folded_table_says_what_its_rows_are_about() -> None:
    found = Table(None, ("arm", "needs", "ratio", "95 % interval"), 2, keys=2)
    found.add_row("muon", "steps", "5.5", "4.9 to 6.2")
    found.add_row("", "tokens", "4.9", "4.4 to 5.5")
    _, part = "\n".join(found.format_lines(30)).split("\n\n")
    assert [line.split()[:2] for line in part.splitlines()] == [["arm", "needs"], ["muon", "steps"], ["tokens", "4.4"]]
