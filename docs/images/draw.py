"""Draw the figures of the README from committed studies: `python docs/images/draw.py`. The report needs a Chromium."""

import json
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import NamedTuple

import altair as alt

HERE = Path(__file__).parent
STUDY = HERE.parents[1] / "pipelines" / "iteration_complexity_shakespeare"
TARGET = "3.60"
NAMES = {"full_gn": "full Gauss-Newton", "layerwise_gn": "layerwise Gauss-Newton", "soap": "SOAP", "muon": "Muon"}
COSTS = {"steps": "steps", "passes": "serial passes", "tokens": "tokens", "flops": "FLOPs"}
SIZE = (1000, 640)  # of the picture of the report, in pixels


class Look(NamedTuple):
    """The colours of a theme. Blue and orange differ for every kind of colour vision, and in grey."""

    paper: str
    ink: str
    grid: str
    newton: str
    others: str


LOOKS = {
    "light": Look("#ffffff", "#222222", "#dddddd", "#0072B2", "#D55E00"),
    "dark": Look("#0d1117", "#e6e6e6", "#3a3f46", "#56B4E9", "#E69F00"),
}


def draw_costs(look: Look) -> alt.HConcatChart:
    """Draw what each method needed to reach the target: a point for each seed, a line at the median."""
    results = json.loads((STUDY / "comparison.json").read_text())["results"][TARGET]
    panels = []
    for cost, title in COSTS.items():
        rows = [
            {"arm": NAMES[arm], "newton": arm.endswith("gn"), "value": value, "median": results[arm][cost]["median"]}
            for arm in NAMES
            for value in results[arm][cost]["needed"].values()
        ]
        arms = alt.Y("arm:N", sort=list(NAMES.values()), title=None, axis=alt.Axis(labels=not panels, labelLimit=200))
        colour = alt.condition("datum.newton", alt.value(look.newton), alt.value(look.others))
        base = alt.Chart(alt.Data(values=rows)).encode(y=arms, color=colour)
        scale, axis = alt.Scale(type="log", nice=False, padding=12), alt.Axis(format="~s", tickCount=4)
        points = base.mark_point(filled=True, size=60, opacity=0.75).encode(
            x=alt.X("value:Q", scale=scale, title=title, axis=axis),
            shape=alt.condition("datum.newton", alt.value("circle"), alt.value("square")),
        )
        medians = base.mark_tick(thickness=2.5, size=26).encode(x="median:Q")
        panels.append((points + medians).properties(width=150, height=130))
    joined = alt.hconcat(*panels, background=look.paper, spacing=14, padding=8)
    plain = {"labelColor": look.ink, "titleColor": look.ink, "labelFontSize": 12, "titleFontSize": 13}
    lines = {"gridColor": look.grid, "domainColor": look.ink, "tickColor": look.ink, "titleFontWeight": "normal"}
    return joined.configure_axis(**plain, **lines).configure_view(stroke=None).configure(font="sans-serif")


def picture_report(theme: str) -> None:
    """Take a picture of the beginning of the study's report."""
    width, height = SIZE
    scheme = {"dark": 0, "light": 1}[theme]
    with tempfile.TemporaryDirectory() as profile:
        command = [
            "chromium", "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars",
            f"--user-data-dir={profile}", "--virtual-time-budget=4000", f"--window-size={width},{height}",
            f"--blink-settings=preferredColorScheme={scheme}", f"--screenshot={HERE / f'report_{theme}.png'}",
            (STUDY / "report.html").as_uri(),
        ]  # fmt: skip
        subprocess.run(command, check=True, capture_output=True, timeout=120)


if __name__ == "__main__":
    for theme, look in LOOKS.items():
        draw_costs(look).save(HERE / f"costs_{theme}.svg")
        if shutil.which("chromium"):
            picture_report(theme)
