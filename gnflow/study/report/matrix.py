"""Make the matrix of arms by axes, and the rule that marks what is not decided."""

from collections.abc import Mapping

from gnflow.study.cells import Cell, Matrix
from gnflow.study.report.html import NOTHING, Markup, escape, make_paragraph, make_table, make_tag


def make_matrix_table(matrix: Matrix, swatches: Mapping[str, Markup]) -> Markup:
    """Make the table with its notes. Arms that are certainly better than the reference are bold."""
    reached = any(row.reached for row in matrix.rows)
    columns = ("arm", *(("seeds there",) if reached else ()), *matrix.columns)
    rows = [
        (swatches[row.arm], *((escape(row.reached),) if reached else ()), *map(_make_cell, row.cells))
        for row in matrix.rows
    ]
    return make_tag(
        "div",
        make_tag("h3", escape(f"{matrix.title[0].upper()}{matrix.title[1:]}")),
        make_table(columns, rows, words=1),
        make_paragraph(" ".join(matrix.notes)),
        class_="matrix",
    )


def _make_cell(cell: Cell) -> Markup:
    beside = make_tag("small", escape(cell.beside), class_="beside") if cell.beside else NOTHING
    value = make_tag("b", escape(cell.value)) if cell.better else escape(cell.value)
    return Markup(value + beside)
