"""Draw the figure of the oracle gap from pipelines/oracle_gap/ranks.json: `python docs/images/draw_oracle.py`."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from svg import LOOKS, Look, begin, draw_point, end, write

HERE = Path(__file__).parent
RANKS = HERE.parents[1] / "pipelines" / "oracle_gap" / "ranks.json"
PLACE = "along muon"
NAMES = {
    "oracle": "layerwise oracle", "ekfac": "EK-FAC", "kfoc": "KFOC", "kfac": "K-FAC", "newton_muon": "Newton-Muon",
    "kl_soap": "KL-SOAP", "soap": "SOAP", "soap_muon": "SOAP-Muon", "muon": "Muon", "normuon": "NorMuon",
    "muon_squared": "Muon squared", "adamw": "AdamW", "rmnp": "RMNP", "sophia": "Sophia", "gradient": "gradient",
}  # fmt: skip
PANELS = {
    "same": "efficiency on the same batch",
    "fresh": "on another batch, by the oracle's",
    "loss": "held-out loss at the end",
}
ENDS = {"same": (0.0, 1.0), "fresh": (0.0, 1.6)}
CURVED = {"oracle", "ekfac", "kfoc", "kfac", "newton_muon"}
"""The directions that know the curvature of the loss."""
LEFT, TOP, ROW, PANEL, GAP, WIDTH = 130, 28, 24, 206, 48, 890


def draw_gap(ranks: Mapping[str, Any], look: Look) -> str:
    """Draw the efficiencies along Muon and the final losses, as SVG: points for means, lines for intervals."""
    found = {
        column: {n: each[column] for n, each in ranks["efficiencies"][PLACE].items()} for column in ("same", "fresh")
    }
    found["loss"] = {**ranks["losses"], "oracle": ranks["losses"]["layerwise_gn"]}
    names = sorted(NAMES, key=lambda name: -found["same"][name]["mean"])
    height = TOP + ROW * len(names) + 36
    parts = begin(WIDTH, height, look)
    parts += [write(LEFT - 12, TOP + ROW * row + 4, NAMES[name], look.ink, "end") for row, name in enumerate(names)]
    for panel, (column, title) in enumerate(PANELS.items()):
        left, below = LEFT + (PANEL + GAP) * panel, TOP + ROW * len(names) - 10
        shown = {name: found[column][name] for name in names if name in found[column]}
        low, high = ENDS[column] if column in ENDS else _span(shown)
        parts.append(f'<path d="M{left} {below}h{PANEL}" stroke="{look.ink}"/>')
        for part in range(5):
            x, tick = left + PANEL * part / 4, low + (high - low) * part / 4
            parts.append(f'<path d="M{x:.1f} {TOP - 16}V{below}" stroke="{look.grid}"/>')
            parts.append(write(x, below + 16, f"{tick:.2f}" if column == "loss" else f"{tick:g}", look.ink, "middle"))
        parts.append(write(left + PANEL / 2, below + 36, title, look.ink, "middle"))
        for row, name in enumerate(names):
            if name in shown:
                places = [
                    left + PANEL * (min(max(shown[name][side], low), high) - low) / (high - low)
                    for side in ("low", "mean", "high")
                ]
                y, colour = TOP + ROW * row, look.newton if name in CURVED else look.others
                parts.append(f'<path d="M{places[0]:.1f} {y}H{places[2]:.1f}" stroke="{colour}" stroke-width="2"/>')
                parts.append(draw_point(places[1], y, name in CURVED, colour))
    return end(parts)


def _span(values: Mapping[str, Mapping[str, float]]) -> tuple[float, float]:
    """Return the ends of an axis with round ticks."""
    low = int(20 * min(each["low"] for each in values.values())) / 20
    high = max(each["high"] for each in values.values())
    step = 0.05
    while low + 4 * step < high:
        step += 0.05
    return low, low + 4 * step


if __name__ == "__main__":
    ranks = json.loads(RANKS.read_text())
    for theme, look in LOOKS.items():
        (HERE / f"oracle_gap_{theme}.svg").write_text(draw_gap(ranks, look))
