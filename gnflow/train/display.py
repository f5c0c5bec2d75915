"""Progress of a run: a live display on a terminal, and an occasional line elsewhere."""

import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from rich.columns import Columns
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.markup import escape
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from gnflow.compiler.plan import Plan
from gnflow.secrets import hide_secrets
from gnflow.train.journal import JOURNAL, Event, Record, Step, read
from gnflow.train.recorder import AVERAGE_LOSS

BARS = "▁▂▃▄▅▆▇█"
WIDTH = 32  # number of losses in the sparkline
RECENT = 10  # number of steps that the speed is measured over
INTERVAL = 10.0  # seconds between lines if the output is not a terminal


class Progress:
    """The progress of a run, computed from its records so far."""

    def __init__(self, plan: Plan, records: Sequence[Step] = ()) -> None:
        self.plan, self.step = plan, 0
        self.latest: dict[str, float] = {}
        self.losses: deque[float] = deque(maxlen=WIDTH)
        self._recent: deque[Step] = deque(maxlen=RECENT + 1)
        self._heard = time.monotonic()
        for record in records:
            self.hear(record)

    def hear(self, record: Step) -> None:
        """Take in one more record."""
        self.step, self._heard = record.step, time.monotonic()
        self.latest.update(record.values)
        self._recent.append(record)
        loss = record.values.get("loss/train", record.values.get("loss/held_out"))
        if loss is not None:
            self.losses.append(loss)

    @property
    def tokens_per_second(self) -> float | None:
        """Training tokens per second of recent steps."""
        seconds = self._measure_per_step(lambda values: values["time/seconds"])
        return (self.plan.tokens_solve + self.plan.tokens_search) / seconds if seconds else None

    @property
    def remaining(self) -> float | None:
        """Seconds until the last step, with evaluations and without compilation."""
        seconds = self._measure_per_step(lambda values: values["time/wall"] - values["time/compile"])
        if not seconds:
            return None
        return max(0.0, seconds * (self.plan.steps - self.step) - (time.monotonic() - self._heard))

    def list_facts(self) -> list[str]:
        """List losses, step length and speed, as far as they are known."""
        named = {
            "loss/train": "loss {:.3f}",
            "loss/held_out": "held out {:.3f}",
            AVERAGE_LOSS: "averaged {:.3f}",
            "gn/alpha": "alpha {:.3g}",
        }
        found = [text.format(self.latest[name]) for name, text in named.items() if name in self.latest]
        if (speed := self.tokens_per_second) is not None:
            found.append(f"{speed:,.0f} tokens/s")
        if (seconds := self.remaining) is not None:
            found.append(f"ETA {format_seconds(seconds)}")
        return found

    def format_line(self) -> str:
        """Format everything in one line."""
        return "  ".join([f"step {self.step}/{self.plan.steps}", *self.list_facts()])

    def render(self) -> RenderableType:
        """Format bar, sparkline and facts for a terminal."""
        experiment = self.plan.experiment
        first = Table.grid(padding=(0, 2))
        bar = ProgressBar(total=self.plan.steps, completed=self.step, width=WIDTH)
        first.add_row(Text(experiment.name, style="bold"), bar, f"{self.step}/{self.plan.steps}")
        target = experiment.training.target
        aim = [f"target {target.at_most:g}"] if target else []
        # Without this, nothing on the screen moves until two steps give a speed.
        wait = [] if self.remaining is not None else [f"{format_seconds(time.monotonic() - self._heard)} in this step"]
        # On a narrow terminal a line ends between two facts, and not between a number and its unit.
        facts = Columns([Text(fact, no_wrap=True) for fact in (*self.list_facts(), *wait, *aim)], padding=(0, 2))
        return Group(first, Text(draw_sparkline(self.losses)), facts)

    def _measure_per_step(self, clock: Callable[[dict[str, float]], float]) -> float | None:
        if len(self._recent) < 2:
            return None
        first, last = self._recent[0], self._recent[-1]
        if last.step <= first.step:
            return None
        return (clock(dict(last.values)) - clock(dict(first.values))) / (last.step - first.step)


class Watcher:
    """The observer that feeds a Progress; it prints events, and lines when there is no live display."""

    def __init__(self, progress: Progress, say: Callable[[str], None], interval: float | None) -> None:
        self._progress, self._say, self._interval = progress, say, interval
        self._due = 0.0

    def hear(self, record: Record) -> None:
        """Show the record."""
        match record:
            case Step():
                self._progress.hear(record)
                last = record.step >= self._progress.plan.steps
                if self._interval is not None and (last or time.monotonic() >= self._due):
                    self._say(self._progress.format_line())
                    self._due = time.monotonic() + self._interval
            case Event():
                self._say(f"step {record.step}: {record.name}: {record.message}")


class Display:
    """Messages to the user of a run: `say` prints a line, and `watch` shows the progress of one run."""

    def __init__(self, console: Console | None = None, interval: float = INTERVAL) -> None:
        self.console = console or Console()
        self._interval = interval
        self._live = self.console.is_terminal and not self.console.is_dumb_terminal

    def say(self, line: str) -> None:
        """Print a line above the live display."""
        self.console.print(escape(hide_secrets(line)), highlight=False, soft_wrap=True)

    @contextmanager
    def watch(self, plan: Plan, directory: Path) -> Iterator[Watcher]:
        """Show the progress of a run, whose journal may already hold steps."""
        progress = Progress(plan, list(read(directory / JOURNAL).steps.values()))
        if self._live:
            with Live(console=self.console, get_renderable=progress.render, refresh_per_second=4):
                # The cursor stays visible, since a second Ctrl-C ends the process before it could be shown again.
                self.console.show_cursor(True)
                yield Watcher(progress, self.say, None)
        else:
            yield Watcher(progress, self.say, self._interval)


def draw_sparkline(values: Sequence[float] | deque[float]) -> str:
    """Draw one bar for each value, scaled to the range of the values."""
    if not values:
        return ""
    low, high = min(values), max(values)
    scale = (len(BARS) - 1) / (high - low) if high > low else 0.0
    return "".join(BARS[round((value - low) * scale)] for value in values)


def format_seconds(seconds: float) -> str:
    """Format seconds as `1:02:03` or `2:03`."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
