"""Draw the comparison of a study: the steps of each arm as a multiple of those of the reference, with intervals."""

import json
from html import escape
from math import exp, log
from pathlib import Path

from gnflow.study.figures import format_ratio, format_target

LEFT, WIDTH, ROW = 170, 720, 22
"""Width of the labels, width of the drawing and height of a row, in pixels."""
TICKS = (0.125, 0.25, 0.5, 1, 2, 4, 8, 16, 32)
FINE_TICKS = (0.4, 0.6, 0.8, 1, 1.2, 1.5, 2, 2.5)
"""The ticks of an axis whose ends differ by less than a factor of four."""


def draw_comparison(path: Path) -> str:
    """Return a figure (HTML with SVG) of the `comparison.json` at `path`, for its lowest target.

    If the reference missed that one with some seeds, it is the lowest that it reached with all.
    The figure is empty if the study has no targets, as at the end of schedules, or has not been run.
    """
    comparison = json.loads(path.read_text()) if path.exists() else {"targets": []}
    if not comparison["targets"]:
        return ""
    reference = comparison["reference"]
    targets = [format_target(target) for target in sorted(comparison["targets"])]
    reached = [target for target in targets if not comparison["results"][target][reference]["missed"]]
    target = (reached or targets)[0]
    rows = {arm: ratios["steps"] for arm, ratios in comparison["ratios"][target].items()}
    rows = {arm: row for arm, row in rows.items() if row["factor"] is not None}
    ends = [end for row in rows.values() for end in (row["factor"], *row["interval"].values()) if end]
    low, high = min(0.8, *ends), max(1.25, *ends)
    margin = exp(0.08 * log(high / low))
    low, high = low / margin, high * margin

    def x(value: float) -> float:
        return LEFT + (WIDTH - LEFT - 60) * log(value / low) / log(high / low)

    bottom = ROW * len(rows) + 8
    parts = [
        f'<line x1="{x(tick):.1f}" y1="0" x2="{x(tick):.1f}" y2="{bottom}" class="{"one" if tick == 1 else "tick"}"/>'
        f'<text x="{x(tick):.1f}" y="{bottom + 16}" text-anchor="middle">{tick:g}</text>'
        for tick in (FINE_TICKS if high / low < 4 else TICKS)
        if low <= tick <= high
    ]
    for number, (arm, row) in enumerate(rows.items()):
        y = ROW * number + 16
        start, end = row["interval"]["low"], row["interval"]["high"]
        if row["bound"] == "at least":
            start = start or row["factor"]
        left, right, middle = x(start or low), x(end or high), x(row["factor"])
        label = f"{'≥ ' if row['bound'] == 'at least' else ''}{format_ratio(row['factor'])}"
        parts += [
            f'<text x="{LEFT - 10}" y="{y + 4}" text-anchor="end">{escape(arm)}</text>',
            f'<line x1="{left:.1f}" y1="{y}" x2="{right:.1f}" y2="{y}" class="interval"/>',
            f'<circle cx="{middle:.1f}" cy="{y}" r="4.5"/>',
            f'<text x="{max(right, middle) + 8:.1f}" y="{y + 4}">{label}</text>',
        ]
    caption = f"Steps to a held-out loss of {target}, as a multiple of those of <code>{escape(reference)}</code>"
    caption += ", with 95 % intervals."
    caption += " ≥: some seeds missed it." if any(row["bound"] == "at least" for row in rows.values()) else ""
    return (
        f'<figure class="comparison">\n<svg viewBox="0 0 {WIDTH} {bottom + 22}" role="img">\n'
        + "\n".join(parts)
        + f"\n</svg>\n<figcaption>{caption}</figcaption>\n</figure>\n"
    )
