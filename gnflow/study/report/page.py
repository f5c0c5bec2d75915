"""Make the page: one HTML document without network requests. The same comparison gives the same bytes."""

from collections.abc import Iterable, Iterator, Mapping, Sequence

from gnflow.study import figures
from gnflow.study.comparison import Comparison
from gnflow.study.report import assets, data, results
from gnflow.study.report.budgets import budgets
from gnflow.study.report.charts.chart import Chart
from gnflow.study.report.html import NOTHING, Markup, embedded, listing, paragraph, tag, text
from gnflow.study.report.provenance import provenance
from gnflow.study.report.samples import samples

MOST_NAMES = 4  # largest number of arms named in a title


def page(comparison: Comparison, charts: Sequence[Chart], stills: Mapping[str, str], title: str | None) -> str:
    """Make the page; `stills` holds an SVG for each chart, by its name."""
    heading = title or default_title(comparison)
    drawn = {chart.name: _figure(chart, stills[chart.name]) for chart in charts}
    sections = [
        ("results", "Arms", tag("div", *results.arms(comparison))),
        *_section("ratios", "Ratios", drawn, ("ratios",), results.ratios(comparison)),
        *_section("budgets", "Equal budgets", drawn, (), budgets(comparison)),
        *_section("loss", "Loss curves", drawn, ("losses",)),
        *_section("batch", "Batch size", drawn, ("batch_size",)),
        *_section("profile", "Profile", drawn, ("profiles",)),
        *_section("gauss-newton", "Gauss-Newton", drawn, ("step_lengths", "gain_ratios", "decreases")),
        *_section("probes", "Probes", drawn, ("dominance", "curvature", "conflict", "modalities")),
        *_section("samples", "Samples", drawn, (), samples(comparison)),
        ("costs", "Costs", tag("div", *results.costs(comparison))),
        ("provenance", "Provenance", tag("div", *provenance(comparison))),
    ]
    body = [
        tag("h1", text(heading)),
        *(paragraph(sentence, "verdict") for sentence in comparison.verdict),
        _warnings(comparison.warnings),
        tag("nav", *(tag("a", text(name), href=f"#{anchor}") for anchor, name, _ in sections)),
        *(tag("section", tag("h2", text(name)), content, id=anchor) for anchor, name, content in sections),
        _data(charts),
    ]
    return _document(heading, body)


def default_title(comparison: Comparison) -> str:
    """Name the arms and the targets or budgets of the comparison."""
    names = [arm.name for arm in comparison.arms]
    shown = names if len(names) <= MOST_NAMES else [*names[: MOST_NAMES - 1], f"{len(names) - MOST_NAMES + 1} more"]
    aim = "at equal budgets" if comparison.headline is None else f"to a held-out loss of {comparison.headline:g}"
    return f"{figures.listed(shown)}: {aim}"


def _section(
    anchor: str, name: str, drawn: Mapping[str, Markup], charts: Sequence[str], tables: Iterable[Markup] = ()
) -> Iterator[tuple[str, str, Markup]]:
    """Make a section; nothing if it would be empty."""
    content = [*(drawn[chart] for chart in charts if chart in drawn), *tables]
    if content:
        yield anchor, name, tag("div", *content)


def _figure(chart: Chart, still: str) -> Markup:
    return tag(
        "figure",
        tag("figcaption", tag("h3", text(chart.title)), paragraph(chart.note)),
        _choices(chart),
        tag("div", class_="live"),
        Markup(f'<img class="still" alt="{text(chart.title)}" src="{assets.data_uri(still)}">'),
        id=f"chart-{chart.name}",
    )


def _choices(chart: Chart) -> Markup:
    if not chart.choices:
        return NOTHING
    rows = []
    for choice in chart.choices:
        buttons = [
            tag(
                "label", _button(f"{chart.name} {choice.name}", option, first=option == choice.options[0]), text(option)
            )
            for option in choice.options
        ]
        rows.append(tag("fieldset", tag("legend", text(choice.name)), *buttons))
    return tag("div", *rows, class_="choices")


def _button(group: str, option: str, *, first: bool) -> Markup:
    return Markup(f'<input type="radio" name="{text(group)}" value="{text(option)}"{" checked" if first else ""}> ')


def _warnings(warnings: Sequence[str]) -> Markup:
    if not warnings:
        return NOTHING
    return tag("div", tag("strong", text("Before believing this")), listing(warnings), class_="warnings", role="note")


def _data(charts: Sequence[Chart]) -> Markup:
    """Embed every table once, and the specifications that draw it."""
    content = {
        "charts": {chart.name: {"tables": list(chart.tables), "views": chart.views} for chart in charts},
        "tables": {name: data.plain(rows)._asdict() for chart in charts for name, rows in chart.tables.items()},
    }
    return embedded(content, "charts")


def _document(heading: str, body: Sequence[Markup]) -> str:
    scripts = (assets.vega(), assets.script())
    head = [
        '<meta charset="utf-8">',
        f'<meta http-equiv="Content-Security-Policy" content="{text(assets.policy(*scripts))}">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        tag("title", text(heading)),
        tag("style", Markup(assets.style())),
    ]
    run = [tag("script", Markup(script)) for script in scripts]
    return "\n".join(["<!DOCTYPE html>", '<html lang="en">', *head, *body, *run, "</html>", ""])
