"""Make the page: one HTML document without network requests. The same comparison gives the same bytes."""

from collections.abc import Iterable, Iterator, Mapping, Sequence

from gnflow.study import figures
from gnflow.study.comparison import Comparison
from gnflow.study.lead import tell_answer
from gnflow.study.matrix import make_matrix
from gnflow.study.report import assets, data, results
from gnflow.study.report.budgets import make_budget_tables
from gnflow.study.report.charts.chart import Chart
from gnflow.study.report.html import NOTHING, Markup, embed_json, escape, make_list, make_paragraph, make_tag
from gnflow.study.report.matrix import make_matrix_table
from gnflow.study.report.provenance import make_provenance
from gnflow.study.report.samples import make_samples

FIRST = ("ratios", "differences", "losses")  # the first of these charts stands beside the answer
MOST_NAMES = 4  # largest number of arms named in a title


def make_page(comparison: Comparison, charts: Sequence[Chart], stills: Mapping[str, str], title: str | None) -> str:
    """Make the page; `stills` holds an SVG for each chart, by its name."""
    heading = title or make_title(comparison)
    drawn = {chart.name: _make_figure(chart, stills[chart.name]) for chart in charts}
    swatches = results.make_swatches(comparison)
    first = next((name for name in FIRST if name in drawn), None)
    answer = drawn.pop(first) if first else NOTHING
    matrix = make_matrix(comparison)
    others = [make_matrix(comparison, target) for target in comparison.targets[-2::-1]]
    sections = [
        *_make_section("words", "In words", {}, (), [_make_sentences(comparison)] if comparison.verdict else ()),
        ("results", "Arms", make_tag("div", *results.make_arm_tables(comparison))),
        *_make_section("targets", "Other targets", {}, (), [make_matrix_table(m, swatches) for m in others if m]),
        *_make_section("ratios", "Ratios", drawn, (), results.make_ratio_tables(comparison)),
        *_make_section("budgets", "Equal budgets", drawn, (), make_budget_tables(comparison)),
        *_make_section("loss", "Loss curves", drawn, ("losses", "schedules")),
        *_make_section("batch", "Batch size", drawn, ("batch_size",)),
        *_make_section("profile", "Profile", drawn, ("profiles",)),
        *_make_section("gauss-newton", "Gauss-Newton", drawn, ("step_lengths", "gain_ratios", "decreases")),
        *_make_section("probes", "Probes", drawn, ("dominance", "curvature", "conflict", "modalities")),
        *_make_section(
            "preconditioners", "Preconditioners", drawn, ("efficiencies", "efficiencies_steps", "efficiencies_kinds")
        ),
        *_make_section("samples", "Samples", drawn, (), make_samples(comparison)),
        ("costs", "Costs", make_tag("div", *results.make_cost_tables(comparison))),
        ("provenance", "Provenance", make_tag("div", *make_provenance(comparison))),
    ]
    body = [
        make_tag("h1", escape(heading)),
        make_paragraph(tell_answer(comparison), "verdict"),
        answer,
        make_matrix_table(matrix, swatches) if matrix else NOTHING,
        _make_warnings(comparison.warnings),
        make_tag("nav", *(make_tag("a", escape(name), href=f"#{anchor}") for anchor, name, _ in sections)),
        *(_fold(anchor, name, content) for anchor, name, content in sections),
        _embed_data(charts),
    ]
    return _make_document(heading, body)


def make_title(comparison: Comparison) -> str:
    """Name the arms and the targets or budgets of the comparison."""
    names = [arm.name for arm in comparison.arms]
    shown = names if len(names) <= MOST_NAMES else [*names[: MOST_NAMES - 1], f"{len(names) - MOST_NAMES + 1} more"]
    equal = "at the end of their schedules" if comparison.ended else "at equal budgets"
    aim = equal if comparison.headline is None else f"to a held-out loss of {comparison.headline:g}"
    return f"{figures.join_words(shown)}: {aim}"


def _fold(anchor: str, name: str, content: Markup) -> Markup:
    return make_tag("details", make_tag("summary", make_tag("h2", escape(name))), content, class_="section", id=anchor)


def _make_sentences(comparison: Comparison) -> Markup:
    return make_tag("div", *(make_paragraph(sentence, "sentence") for sentence in comparison.verdict))


def _make_section(
    anchor: str, name: str, drawn: Mapping[str, Markup], charts: Sequence[str], tables: Iterable[Markup] = ()
) -> Iterator[tuple[str, str, Markup]]:
    """Make a section; nothing if it would be empty."""
    content = [*(drawn[chart] for chart in charts if chart in drawn), *tables]
    if content:
        yield anchor, name, make_tag("div", *content)


def _make_figure(chart: Chart, still: str) -> Markup:
    return make_tag(
        "figure",
        make_tag("figcaption", make_tag("h3", escape(chart.title)), make_paragraph(chart.note)),
        _make_choices(chart),
        make_tag("div", class_="live"),
        Markup(f'<img class="still" alt="{escape(chart.title)}" src="{assets.encode_data_uri(still)}">'),
        id=f"chart-{chart.name}",
    )


def _make_choices(chart: Chart) -> Markup:
    if not chart.choices:
        return NOTHING
    rows = []
    for choice in chart.choices:
        buttons = [
            make_tag(
                "label",
                _make_button(f"{chart.name} {choice.name}", option, first=option == choice.options[0]),
                escape(option),
            )
            for option in choice.options
        ]
        rows.append(make_tag("fieldset", make_tag("legend", escape(choice.name)), *buttons))
    return make_tag("div", *rows, class_="choices")


def _make_button(group: str, option: str, *, first: bool) -> Markup:
    return Markup(f'<input type="radio" name="{escape(group)}" value="{escape(option)}"{" checked" if first else ""}> ')


def _make_warnings(warnings: Sequence[str]) -> Markup:
    if not warnings:
        return NOTHING
    heading = make_tag("strong", escape("Before believing this"))
    count = escape(f": {figures.format_plural(len(warnings), 'remark')}")
    return make_tag("details", make_tag("summary", Markup(heading + count)), make_list(warnings), class_="warnings")


def _embed_data(charts: Sequence[Chart]) -> Markup:
    """Embed every table once, and the specifications that draw it."""
    content = {
        "charts": {chart.name: {"tables": list(chart.tables), "views": chart.views} for chart in charts},
        "tables": {name: data.convert_table(rows)._asdict() for chart in charts for name, rows in chart.tables.items()},
    }
    return embed_json(content, "charts")


def _make_document(heading: str, body: Sequence[Markup]) -> str:
    scripts = (assets.bundle_vega(), assets.read_script())
    head = [
        '<meta charset="utf-8">',
        f'<meta http-equiv="Content-Security-Policy" content="{escape(assets.make_policy(*scripts))}">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        make_tag("title", escape(heading)),
        make_tag("style", Markup(assets.read_style())),
    ]
    run = [make_tag("script", Markup(script)) for script in scripts]
    return "\n".join(["<!DOCTYPE html>", '<html lang="en">', *head, *body, *run, "</html>", ""])
