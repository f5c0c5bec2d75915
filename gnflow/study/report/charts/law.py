"""A chart of final losses over scales, with the fitted law and its interval."""

from math import exp, log

import altair as alt
import polars

from gnflow.study.report.charts import look
from gnflow.study.report.charts.chart import HEIGHT, WIDTH, Spec, make_still, set_size
from gnflow.study.scales import WORDS, Scaled

STEPS = 40  # points of a curve
LABEL = "held-out loss at the end"


def draw_law(scaled: Scaled) -> Spec:
    """Draw the loss of every run against size, and the law between the smallest and the largest size."""
    methods = list(dict.fromkeys(point.method for point in scaled.points))
    points = polars.DataFrame([{"arm": p.method, "size": p.size, "loss": p.loss} for p in scaled.points])
    x = alt.X(
        "size:Q",
        title=WORDS[scaled.measure],
        scale=alt.Scale(type="log", nice=False, padding=20),
        axis=look.make_large_axis(),
    )
    y = alt.Y("loss:Q", title=LABEL, scale=alt.Scale(zero=False))
    layers = [
        alt.Chart(look.name_table("points")).mark_point(filled=True, size=45).encode(x, y, **look.style_points(methods))
    ]
    tables = {"points": points}
    if scaled.law is not None:
        tables["curves"] = polars.DataFrame(_curves(scaled))
        curves = alt.Chart(look.name_table("curves"))
        colour = look.encode_colour(methods, symbol="stroke")
        layers = [
            curves.mark_area(opacity=0.15).encode(x, alt.Y("low:Q", title=LABEL), alt.Y2("high:Q"), colour),
            curves.mark_line(strokeWidth=2).encode(x, y, colour),
            *layers,
        ]
    drawing = make_still(set_size(look.layer(*layers), WIDTH, HEIGHT))
    return {**drawing, "datasets": {name: rows.to_dicts() for name, rows in tables.items()}}


def _curves(scaled: Scaled) -> list[dict[str, object]]:
    law = scaled.law
    assert law is not None
    low, high = law.sizes
    rows: list[dict[str, object]] = []
    for method in law.factors:
        for step in range(STEPS + 1):
            size = exp(log(low) + step / STEPS * (log(high) - log(low)))
            loss, interval = law.predict_loss(method, size), law.predict_interval(method, size)
            ends = interval or (loss, loss)
            rows.append({"arm": method, "size": size, "loss": loss, "low": ends[0], "high": ends[1]})
    return rows
