import io
from pathlib import Path

import pytest
from quadratic import quadratic_plan
from rich.console import Console

from gnflow.train.display import Display, Progress, draw_sparkline, format_seconds
from gnflow.train.journal import Event, Journal, Step


def step(number: int, loss: float = 2.0, **values: float) -> Step:
    clocks = {"time/seconds": 2.0 * number, "time/compile": 30.0 if number else 0.0, "time/wall": 5.0 * number + 30.0}
    if number == 0:
        clocks["time/wall"] = 0.0
    return Step(number, 0.0, {"loss/train": loss, **clocks, **values})


def plain(interval: float = 0.0) -> tuple[Display, io.StringIO]:
    out = io.StringIO()
    return Display(Console(file=out, width=200), interval), out


def test_speed_leaves_compilation_out_and_the_time_left_counts_evaluations() -> None:
    progress = Progress(quadratic_plan(), [step(0), step(1), step(2)])
    assert progress.tokens_per_second == 96 / 2.0
    assert progress.remaining == pytest.approx(5.0 * 10, abs=0.5)
    assert Progress(quadratic_plan(), [step(0)]).remaining is None


def test_off_a_terminal_there_is_one_plain_line_per_interval(tmp_path: Path) -> None:
    display, out = plain(interval=1000.0)
    with display.watch(quadratic_plan(), tmp_path) as watcher:
        for number in range(13):
            watcher.hear(step(number, loss=3.0 - 0.1 * number))
    lines = out.getvalue().splitlines()
    assert lines[0] == "step 0/12  loss 3.000"
    assert lines[1] == "step 12/12  loss 1.800  48 tokens/s  ETA 0:00"
    assert len(lines) == 2
    assert "\x1b" not in out.getvalue()


def test_events_are_always_shown_and_never_taken_for_markup(tmp_path: Path) -> None:
    display, out = plain(interval=1000.0)
    with display.watch(quadratic_plan(), tmp_path) as watcher:
        watcher.hear(Event(3, 0.0, "refused", "no trial improved on [bold]the anchor[/bold]"))
    assert out.getvalue() == "step 3: refused: no trial improved on [bold]the anchor[/bold]\n"


def test_a_resumed_run_shows_what_was_there_before(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal.jsonl")
    journal.record(*(step(number) for number in range(6)))
    journal.close()
    display, out = plain()
    with display.watch(quadratic_plan(), tmp_path) as watcher:
        watcher.hear(step(6, loss=1.5, **{"gn/alpha": 0.7071, "loss/held_out": 1.625}))
    assert out.getvalue() == "step 6/12  loss 1.500  held out 1.625  alpha 0.707  48 tokens/s  ETA 0:30\n"


def test_on_a_terminal_the_progress_is_live_and_the_cursor_stays_visible(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    out = io.StringIO()
    console = Console(file=out, force_terminal=True, width=120, height=20, color_system="standard", _environ={})
    with Display(console).watch(quadratic_plan(at_most=1.25), tmp_path) as watcher:
        for number in range(4):
            watcher.hear(step(number, loss=3.0 - 0.5 * number))
    shown = out.getvalue()
    assert "3/12" in shown
    assert "█▆▃▁" in shown
    assert "target 1.25" in shown
    assert shown.rfind("\x1b[?25h") > shown.rfind("\x1b[?25l")
    assert shown.index("\x1b[?25h") < shown.index("3/12")


def test_no_color_is_respected(tmp_path: Path) -> None:
    out = io.StringIO()
    console = Console(file=out, force_terminal=True, width=120, _environ={"NO_COLOR": "1", "TERM": "xterm-256color"})
    with Display(console).watch(quadratic_plan(), tmp_path) as watcher:
        watcher.hear(step(1))
    assert "\x1b[3" not in out.getvalue()
    assert "\x1b[4" not in out.getvalue()


def test_a_sparkline_spans_the_range_of_its_values() -> None:
    assert draw_sparkline([3.0, 2.0, 1.0]) == "█▅▁"
    assert draw_sparkline([1.0, 1.0]) == "▁▁"
    assert draw_sparkline([]) == ""


@pytest.mark.parametrize(("seconds", "text"), [(0.4, "0:00"), (83, "1:23"), (3723, "1:02:03")])
def test_time_is_shown_as_a_clock(seconds: float, text: str) -> None:
    assert format_seconds(seconds) == text
