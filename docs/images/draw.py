"""Draw the figures of the README from a committed study: `python docs/images/draw.py [REPORT]`.

REPORT is a page that `gnflow report` has written from the runs of the study. Its beginning is pictured with a Chromium.
"""

import json
import subprocess
import sys
import tempfile
from collections.abc import Callable
from math import log
from pathlib import Path

from svg import LOOKS, Look, begin, draw_point, end, write

HERE = Path(__file__).parent
STUDY = HERE.parents[1] / "pipelines" / "iteration_complexity_shakespeare"
TARGET = "3.60"
NAMES = {"full_gn": "full Gauss-Newton", "layerwise_gn": "layerwise Gauss-Newton", "soap": "SOAP", "muon": "Muon"}
COSTS = {"steps": "steps", "passes": "serial passes", "tokens": "tokens", "flops": "FLOPs"}
LEFT, TOP, ROW, PANEL, GAP, WIDTH, HEIGHT = 170, 28, 32, 150, 36, 890, 190
SIZE = (1000, 780)  # of the picture of the report, in pixels


def draw_costs(look: Look) -> str:
    """Draw what each method needed to reach the target, as SVG: a point for each seed, a line at the median."""
    results = json.loads((STUDY / "comparison.json").read_text())["results"][TARGET]
    parts = begin(WIDTH, HEIGHT, look)
    for row, name in enumerate(NAMES.values()):
        parts.append(write(LEFT - 14, TOP + ROW * row + 4, name, look.ink, "end"))
    for panel, (cost, title) in enumerate(COSTS.items()):
        found = {arm: results[arm][cost] for arm in NAMES}
        values = [value for each in found.values() for value in each["needed"].values()]
        place = _make_scale(min(values), max(values), LEFT + (PANEL + GAP) * panel)
        below = TOP + ROW * len(NAMES) - 12
        parts.append(f'<path d="M{LEFT + (PANEL + GAP) * panel} {below}h{PANEL}" stroke="{look.ink}"/>')
        for tick in _choose_ticks(min(values), max(values)):
            x = place(tick)
            parts.append(f'<path d="M{x:.1f} {TOP - 18}V{below}" stroke="{look.grid}"/>')
            parts.append(write(x, below + 16, _shorten(tick), look.ink, "middle"))
        parts.append(write(LEFT + (PANEL + GAP) * panel + PANEL / 2, below + 36, title, look.ink, "middle"))
        for row, (arm, each) in enumerate(found.items()):
            y, newton = TOP + ROW * row, arm.endswith("gn")
            colour, x = look.newton if newton else look.others, place(each["median"])
            parts.append(f'<path d="M{x:.1f} {y - 11}v22" stroke="{colour}" stroke-width="2.5"/>')
            parts += [draw_point(place(value), y, newton, colour) for value in each["needed"].values()]
    return end(parts)


def _make_scale(low: float, high: float, left: float) -> Callable[[float], float]:
    """Return the place of a value on a logarithmic axis, with room on both sides."""
    step = (PANEL - 24) / (log(high) - log(low))
    return lambda value: left + 12 + step * (log(value) - log(low))


def _choose_ticks(low: float, high: float) -> list[float]:
    """Return at most four round numbers within the range."""
    rounded = [digit * 10.0**power for power in range(14) for digit in (1, 2, 5)]
    found = [number for number in rounded if low * 0.97 <= number <= high * 1.03]
    return found[:: -(-len(found) // 4)]


def _shorten(number: float) -> str:
    for unit, letter in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if number >= unit:
            return f"{number / unit:g}{letter}"
    return f"{number:g}"


def picture_report(page: Path, theme: str) -> None:
    """Take a picture of the beginning of a report."""
    width, height = SIZE
    scheme = {"dark": 0, "light": 1}[theme]
    with tempfile.TemporaryDirectory() as profile:
        command = [
            "chromium", "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars",
            f"--user-data-dir={profile}", "--virtual-time-budget=4000", f"--window-size={width},{height}",
            f"--blink-settings=preferredColorScheme={scheme}", f"--screenshot={HERE / f'report_{theme}.png'}",
            page.resolve().as_uri(),
        ]  # fmt: skip
        subprocess.run(command, check=True, capture_output=True, timeout=120)


if __name__ == "__main__":
    for theme, look in LOOKS.items():
        (HERE / f"costs_{theme}.svg").write_text(draw_costs(look))
        for page in sys.argv[1:]:
            picture_report(Path(page), theme)
