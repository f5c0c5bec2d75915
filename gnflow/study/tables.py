"""Plain tables that survive a pipe."""

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

WIDE = 160  # columns where there is no terminal to fit into


def console() -> Console:
    """Prints as wide as the terminal; off a terminal wide enough to cut nothing off."""
    there = Console(highlight=False, markup=False, emoji=False, soft_wrap=True)
    return (
        there if there.is_terminal else Console(highlight=False, markup=False, emoji=False, soft_wrap=True, width=WIDE)
    )


def table(title: str | None, columns: Sequence[str], words: int) -> Table:
    """A table whose first `words` columns hold words and whose others hold figures."""
    made = Table(title=title, title_justify="left", box=None, pad_edge=False, padding=(0, 3, 0, 0))
    for index, column in enumerate(columns):
        made.add_column(column, justify="left" if index < words else "right", no_wrap=True)
    return made
