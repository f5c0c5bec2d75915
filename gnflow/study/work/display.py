"""Show a study at work: counts and running tasks in a live display on a terminal, and a line for each event."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from gnflow.secrets import hide_secrets
from gnflow.study.design.tasks import locate
from gnflow.study.work.board import Board, Entry
from gnflow.train.display import format_seconds
from gnflow.train.journal import JOURNAL, read_last_step

WIDTH = 32
STATES = ("done", "running", "ready", "waiting", "elsewhere", "failed")


class Display:
    """Prints events, and shows a board while it is open."""

    def __init__(self, console: Console) -> None:
        self._console = console

    def say(self, line: str) -> None:
        """Print a line, above the live display if there is one."""
        self._console.print(hide_secrets(line), highlight=False, markup=False, soft_wrap=True)

    @contextmanager
    def show(self, board: Board) -> Iterator[None]:
        """Show a board on a terminal for as long as the block lasts."""
        if not self._console.is_terminal or self._console.is_dumb_terminal:
            yield
            return
        with Live(console=self._console, get_renderable=lambda: render(board), refresh_per_second=2):
            yield


def render(board: Board) -> RenderableType:
    """Format the counts in one line, and each running task in one more."""
    bar = Table.grid(padding=(0, 2))
    counts = ", ".join(f"{number} {state}" for state in STATES if (number := board.count(state)))
    bar.add_row(
        Text(board.design.study.name, style="bold"),
        ProgressBar(total=len(board.entries), completed=board.count("done"), width=WIDTH),
        counts,
    )
    rows = Table.grid(padding=(0, 2))
    for entry in board.select("running"):
        rows.add_row(f"  {entry.task.name}", format_seconds(time.time() - entry.since), _format_progress(board, entry))
    return Group(bar, rows)


def _format_progress(board: Board, entry: Entry) -> str:
    directory = locate(board.design, entry.task)
    last = None if directory is None else read_last_step(directory / JOURNAL)
    if last is None:
        return ""
    loss = last.values.get("loss/train", last.values.get("loss/held_out"))
    return f"step {last.step}" if loss is None else f"step {last.step}, loss {loss:.3f}"
