"""Draw steps at one batch beside tokens at each method's own batch: `python docs/images/draw_schedules.py`."""

import json
from collections.abc import Iterator, Mapping
from math import log
from pathlib import Path
from typing import Any

from svg import LOOKS, Look, begin, draw_point, end, write

HERE = Path(__file__).parent
PIPELINES = HERE.parents[1] / "pipelines"
NAMES = {
    "full_gn_cosine": "full Gauss-Newton, cosine", "layerwise_gn": "layerwise Gauss-Newton",
    "muon_constant": "Muon, constant", "muon_wsd": "Muon, wsd", "muon_linear": "Muon, linear",
    "soap_cosine": "SOAP, cosine", "adamw_cosine": "AdamW, cosine", "rmnp_cosine": "RMNP, cosine",
}  # fmt: skip
ALIASES = {"muon": "muon_constant"}
CORPORA = {"Python": -5, "Shakespeare": 5}
"""The pixels by which the points of a corpus lie below the middle of their row."""
STEPS = {
    "Python": (("schedules_python", "3.20"), ("schedules_layerwise_python", "3.20")),
    "Shakespeare": (("schedules_shakespeare", "3.60"),),
}
TICKS = {
    "one batch: steps, by those of full GN": (1, 2, 4, 6),
    "own batch: tokens of full GN for the loss": (0.5, 1, 1.5, 2),
}
LEFT, TOP, ROW, PANEL, GAP = 190, 40, 30, 250, 60


def collect_steps(corpus: str) -> Iterator[tuple[str, Mapping[str, float]]]:
    """Yield (arm, factor with its interval) of the steps to a target, by those of full Gauss-Newton."""
    for study, target in STEPS[corpus]:
        for arm, found in _read(study)["ratios"][target].items():
            yield arm, found["steps"]


def collect_tokens(corpus: str) -> Iterator[tuple[str, Mapping[str, float]]]:
    """Yield (arm, tokens that full Gauss-Newton needs for the arm's last loss, by those that it had)."""
    for arm, found in _read(f"equal_budget_{corpus.lower()}")["budgets"]["tokens"]["differences"].items():
        yield arm, found["token_ratio"]


def draw(look: Look) -> str:
    """Draw both panels, as SVG: points for factors, lines for 95 % intervals."""
    width, below = LEFT + 2 * PANEL + GAP + 40, TOP + ROW * len(NAMES) - 8
    parts = begin(width, below + 62, look)
    rows = {name: TOP + ROW * row + 4 for row, name in enumerate(NAMES)}
    parts += [write(LEFT - 14, rows[name] + 4, text, look.ink, "end") for name, text in NAMES.items()]
    for panel, (collect, (title, ticks)) in enumerate(zip((collect_steps, collect_tokens), TICKS.items(), strict=True)):
        left = LEFT + (PANEL + GAP) * panel
        scale = PANEL / log(1.2 * ticks[-1] / ticks[0])
        for tick in ticks:
            x = left + scale * log(tick / ticks[0])
            parts.append(f'<path d="M{x:.1f} {TOP - 22}V{below}" stroke="{look.ink if tick == 1 else look.grid}"/>')
            parts.append(write(x, below + 18, f"{tick:g}", look.ink, "middle"))
        parts.append(write(left + PANEL / 2, below + 38, title, look.ink, "middle"))
        for corpus, shift in CORPORA.items():
            for arm, found in collect(corpus):
                name = ALIASES.get(arm, arm)
                newton, y = name.endswith(("_gn", "_gn_cosine")), rows[name] + shift
                colour = look.newton if newton else look.others
                ends = [max(left + scale * log(found["interval"][side] / ticks[0]), left) for side in ("low", "high")]
                parts.append(f'<path d="M{ends[0]:.1f} {y}H{ends[1]:.1f}" stroke="{colour}" stroke-width="2"/>')
                parts.append(draw_point(left + scale * log(found["factor"] / ticks[0]), y, newton, colour))
    parts.append(
        write(LEFT, below + 58, "upper points: Python, lower points: Shakespeare; 95 % intervals", look.ink, "start")
    )
    return end(parts)


def _read(study: str) -> Any:
    return json.loads((PIPELINES / study / "comparison.json").read_text())


if __name__ == "__main__":
    for theme, look in LOOKS.items():
        (HERE / f"schedules_{theme}.svg").write_text(draw(look))
