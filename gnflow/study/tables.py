"""Plain tables that survive a pipe and a narrow terminal: no cell is ever cut."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from rich.cells import cell_len
from rich.console import Console, ConsoleOptions
from rich.text import Text

WIDE = 160  # width if the output is not a terminal
GAPS = (3, 2)  # spaces between columns; the second number is used if the first makes the table too wide


def make_console() -> Console:
    """Make a console as wide as the terminal; if there is no terminal, wide enough that nothing is folded."""
    made = Console(highlight=False, markup=False, emoji=False, soft_wrap=True)
    if not made.is_terminal:
        made.width = WIDE
    return made


@dataclass
class Table:
    """A table with words on the left and figures on the right. Columns that do not fit follow below, with the keys."""

    title: str | None
    columns: Sequence[str]
    words: int
    """Number of columns, from the left, that hold words."""
    keys: int = 1
    """Number of columns, from the left, that identify a row."""
    rows: list[Sequence[str]] = field(default_factory=list)

    def add_row(self, *cells: str) -> None:
        """Add a row with one cell for each column."""
        self.rows.append(cells)

    def format_lines(self, width: int) -> Iterator[str]:
        """Format the table in lines of at most this width, unless a single column is too wide."""
        if self.title:
            yield self.title
        sizes = [max(map(cell_len, cells)) for cells in zip(self.columns, *self.rows, strict=True)]
        gap = next((gap for gap in GAPS if sum(sizes) + gap * (len(sizes) - 1) <= width), GAPS[-1])
        for number, block in enumerate(_divide_columns(sizes, self.keys, gap, width)):
            if number:
                yield ""
            for row in (self.columns, *self.rows):
                cells = [self._pad_cell(row[place], sizes[place], place < self.words) for place in block]
                yield (" " * gap).join(cells).rstrip()

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Text]:
        """Return the lines that rich prints."""
        for line in self.format_lines(options.max_width):
            yield Text(line, no_wrap=True, overflow="ignore")

    @staticmethod
    def _pad_cell(text: str, size: int, word: bool) -> str:
        space = " " * (size - cell_len(text))
        return text + space if word else space + text


def _divide_columns(sizes: Sequence[int], keys: int, gap: int, width: int) -> list[list[int]]:
    """Divide the columns into blocks that fit beside the keys."""
    named = list(range(keys))
    blocks = [[*named]]
    for place in range(keys, len(sizes)):
        used = sum(sizes[other] + gap for other in blocks[-1])
        if used + sizes[place] > width and len(blocks[-1]) > keys:
            blocks.append([*named])
        blocks[-1].append(place)
    return blocks
