import base64
import io
import itertools
import json
import re
import subprocess
import sys
from collections.abc import Mapping
from html.parser import HTMLParser
from pathlib import Path
from typing import NamedTuple

import hostile
import numpy as np
import polars
import pytest
from PIL import Image
from reports import TARGETS, arm, comparison, course, study, with_sheet
from run_directories import experiment, finished, steps

from gnflow.commands.report import report
from gnflow.errors import EnvironmentProblem, SpecError
from gnflow.study.comparison import compare
from gnflow.study.report import assets, data
from gnflow.study.report.charts.every import NAMES, make_charts
from gnflow.study.report.charts.look import list_colours
from gnflow.study.report.html import embed_json, escape, make_tag
from gnflow.study.report.write import write
from gnflow.train.journal import Step
from gnflow.train.run import Run

UNDRAWN = ("differences", "schedules")  # the runs have a target, and constant rates
DRAWN = tuple(name for name in NAMES if name not in UNDRAWN)
HOSTILE = "</script><script>document.title='taken'</script><b>\"'&"


class Made(NamedTuple):
    root: Path
    page: Path

    @property
    def html(self) -> str:
        return self.page.read_text()

    @property
    def own(self) -> str:
        """The page without Vega."""
        return self.html.replace(assets.bundle_vega(), "")

    @property
    def content(self) -> Mapping[str, Mapping[str, Mapping[str, object]]]:
        found = re.search(r'<script type="application/json" id="charts">(.*?)</script>', self.html, re.DOTALL)
        assert found
        return json.loads(found[1])


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    root = tmp_path_factory.mktemp("project")
    study(root)
    runs = sorted((root / "runs").glob("*/*"))
    assert report(runs, output=root / "out" / "report.html", targets=TARGETS, reference=None, title=HOSTILE) == 0
    return Made(root, root / "out" / "report.html")


def test_every_chart_that_has_data_is_on_the_page_and_beside_it(made: Made) -> None:
    assert tuple(made.content["charts"]) == DRAWN
    pictures = {path.name for path in (made.page.parent / "report_charts").iterdir()}
    assert pictures == {f"{name}.{kind}" for name in DRAWN for kind in ("png", "svg")}


def test_pictures_show_something_and_have_text(made: Made) -> None:
    for path in (made.page.parent / "report_charts").glob("*.png"):
        with Image.open(io.BytesIO(path.read_bytes())) as picture:
            pixels = np.asarray(picture.convert("RGB")).astype(int)
        assert pixels.shape[1] >= 1400, path
        assert (pixels[:4] == 255).all(), path  # the ground is white
        saturated = (pixels.max(-1) - pixels.min(-1)) > 80
        assert saturated.sum() > 200, path  # marks in the colours of arms
        dark = (pixels.max(-1) < 110).sum()
        assert dark > 1000, path  # letters
    assert ">held-out loss</text>" in (made.page.parent / "report_charts" / "losses.svg").read_text()


def test_each_table_and_the_script_are_there_once(made: Made) -> None:
    html, content = made.html, made.content
    assert html.count(assets.bundle_vega()) == 1
    used = [name for chart in content["charts"].values() for name in chart["tables"]]  # type: ignore[attr-defined]
    assert sorted(used) == sorted(content["tables"])
    assert not [view for chart in content["charts"].values() if "datasets" in json.dumps(chart) for view in chart]
    assert len(html) - len(assets.bundle_vega()) < 600_000


def test_nothing_refers_to_the_network_or_to_this_machine(made: Made) -> None:
    addresses = set(re.findall(r"https?:[^\"'\s\\)%]+", made.own))
    assert {re.sub(r"[\d.]+\.json", "", address) for address in addresses} <= {
        "https://vega.github.io/schema/vega-lite/v",  # the name of a language; never fetched
        "http://www.w3.org/2000/svg",
        "http://www.w3.org/1999/xlink",
    }
    assert str(made.root) not in made.html
    assert "runs/full_gn/seed_0" in made.html
    assert "default-src &#x27;none&#x27;" in made.html
    assert not re.findall(r"<(?:link|iframe|object|embed|base)\b", made.own)


def test_the_same_runs_give_the_same_bytes(made: Made) -> None:
    found = compare([*map(Run.load, sorted((made.root / "runs").glob("*/*")))], TARGETS)
    again = write(found, made.root / "again" / "report.html", HOSTILE)
    assert again.page.read_bytes() == made.page.read_bytes()
    for path in again.pictures.iterdir():
        assert path.read_bytes() == (made.page.parent / "report_charts" / path.name).read_bytes(), path.name


def test_what_users_wrote_is_text_and_not_markup(made: Made) -> None:
    assert "<script>document.title" not in made.html
    assert f"<h1>{escape(HOSTILE)}</h1>" in made.html
    assert made.html.count("<script") - assets.bundle_vega().count("<script") == 3


def test_json_on_the_page_cannot_end_its_script() -> None:
    script = embed_json({"a": HOSTILE, "b": "<!--"}, "charts")
    assert script.count("<") == 2
    assert json.loads(script.partition(">")[2].rpartition("<")[0]) == {"a": HOSTILE, "b": "<!--"}
    assert make_tag("a", escape("<x>"), href='" onclick="') == '<a href="&quot; onclick=&quot;">&lt;x&gt;</a>'


class Elements(HTMLParser):
    """Every element of a page with its attributes."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))


def test_a_hostile_name_or_spec_adds_no_element_to_the_page(tmp_path: Path) -> None:
    page = hostile.page(tmp_path).read_text().replace(assets.bundle_vega(), "")
    found = Elements(page).found
    assert not [name for _, attributes in found for name in attributes if name.startswith("on")]
    assert [attributes for tag, attributes in found if tag == "script"] == [
        {"type": "application/json", "id": "charts"}, {}, {},
    ]  # fmt: skip
    assert {attributes.get("class") for tag, attributes in found if tag == "img"} == {"still"}
    assert not {"b", "svg", "iframe"} & {tag for tag, _ in found}
    for name in hostile.NAMES:
        assert escape(name) in page
    assert escape(hostile.COMMENT) in page


def test_tables_say_what_the_comparison_says(made: Made, tmp_path: Path) -> None:
    found = comparison(tmp_path)
    own = made.own
    assert all(escape(sentence) in own for sentence in found.verdict)
    for warning in found.warnings:
        assert escape(warning) in own
    assert own.index('class="warnings"') < own.index("<nav>")
    for heading in ("Arms", "Ratios", "Loss curves", "Costs", "Provenance"):
        assert f"<h2>{heading}</h2>" in own
    rows = [re.findall(r"<td[^>]*>(.*?)</td>", row) for row in re.findall(r"<tr>(.*?)</tr>", own)]
    needed = [row for row in rows if row and row[0].endswith("muon") and row[1] == "2/2"]
    medians = {result.target: result.median["steps"] for result in found.results if result.arm == "muon"}
    assert [row[2].partition("<small")[0] for row in needed] == [f"{medians[target]:g}" for target in TARGETS[::-1]]


def test_without_data_there_is_no_chart_and_no_heading(tmp_path: Path) -> None:
    (tmp_path / "report_charts").mkdir()
    stale, own = tmp_path / "report_charts" / "gain_ratios.png", tmp_path / "report_charts" / "mine.png"
    stale.touch()
    own.touch()
    (tmp_path / ".git").mkdir()
    written = write(compare([arm(tmp_path, "muon", "muon", course(0.2, 12, 0))]), tmp_path / "report.html")
    assert written.charts == ("losses",)
    assert not stale.exists()
    assert own.exists()
    page = written.page.read_text()
    assert "Gauss-Newton</h2>" not in page
    assert "Ratios</h2>" not in page
    assert "Samples</h2>" not in page


def test_the_last_sheet_of_a_run_is_on_the_page_with_its_words_and_figures(made: Made) -> None:
    (section,) = re.findall(r'<details class="section" id="samples">(.*?)</details>', made.own, re.DOTALL)
    (address,) = re.findall(r'<img class="sheet"[^>]* src="data:image/png;base64,([^"]*)">', section)
    there = sorted((made.root / "runs" / "muon" / "seed_0" / "samples").glob("*.png"))
    assert len(there) == 2
    assert base64.b64decode(address) == there[-1].read_bytes()
    assert made.own.count('class="sheet"') == 1
    for said in (
        "muon, seed 0", "Step 20, guidance 3.0", "right about 96% of held-out images, recognises 25% of those drawn",
        "50% of the model&#x27;s own captions", "the digit 1; &lt;b&gt;two&lt;/b&gt;.",
    ):  # fmt: skip
        assert said in section


def test_sheets_without_labels_or_of_many_pixels_are_spoken_of_as_they_are(tmp_path: Path) -> None:
    (tmp_path / ".git").mkdir()
    run = arm(tmp_path, "muon", "muon", course(0.2, 12, 0))
    with_sheet(run, 4)
    (run.directory / "samples" / "step_00000004.json").write_text(json.dumps({"step": 4, "figures": {}, "samples": []}))
    (run.directory / "samples" / "step_00000012.png").write_bytes(b"its words were not written yet")
    page = write(compare([run]), tmp_path / "report.html").page.read_text()
    assert "Step 4," in page
    assert "recognises" not in page
    (run.directory / "samples" / "step_00000004.png").write_bytes(b"x" * 2_000_000)
    page = write(compare([run]), tmp_path / "report.html").page.read_text()
    assert "The sheet, 2.0 MB, is in runs/muon/seed_0/samples." in page
    assert 'class="sheet"' not in page


def test_a_run_that_measured_no_loss_still_has_a_page(tmp_path: Path) -> None:
    blind = [Step(record.step, record.time, {"loss/train": 4.0}) for record in steps([4.9, 3.3])]
    run = Run.load(finished(tmp_path / "blind", experiment(), blind))
    written = write(compare([run], [3.4]), tmp_path / "report.html")
    assert written.charts == ()
    assert "Provenance</h2>" in written.page.read_text()


def test_curves_that_rise_far_are_cut_and_it_is_said(tmp_path: Path) -> None:
    wild = arm(tmp_path, "wild", "muon", [4.9, 9.0, 1e6, 5.0, 3.4])
    [chart] = [chart for chart in make_charts(compare([wild], [3.5])) if chart.name == "losses"]
    assert "cut off" in chart.note
    assert '"domainMax": 4.998' in json.dumps(chart.still)


def test_the_ideal_scaling_halves_steps_for_twice_the_tokens(tmp_path: Path) -> None:
    small = arm(tmp_path, "small", {"kind": "muon", "microbatches": 1}, course(0.1, 30, 0), batch=1000)
    large = arm(
        tmp_path, "large", {"kind": "muon", "microbatches": 4, "learning_rate": 0.04}, course(0.3, 30, 0), batch=4000
    )
    [chart] = [chart for chart in make_charts(compare([small, large], [3.5])) if chart.name == "batch_size"]
    medians = {row["arm"]: row["steps"] for row in chart.tables["batch_medians"].to_dicts()}
    assert set(chart.tables["batch_medians"]["method"]) == {"small"}
    assert [(row["batch"], row["steps"]) for row in chart.tables["batch_ideal"].to_dicts()] == [
        (1000.0, medians["small"]),
        (4000.0, medians["small"] / 4),
    ]


def test_a_miss_is_an_arrow_and_not_a_number(tmp_path: Path) -> None:
    fast, slow = arm(tmp_path, "fast", "muon", course(0.4, 9, 0)), arm(tmp_path, "slow", "soap", course(0.1, 9, 0))
    [chart] = [chart for chart in make_charts(compare([fast, slow], [3.5])) if chart.name == "ratios"]
    [row] = chart.tables["ratios"].filter(polars.col("axis") == "steps").to_dicts()
    assert row["bound"] == "at least"
    assert row["right"] == row["high"] > row["factor"]
    assert row["left"] is None


def test_long_curves_are_thinned_with_their_ends_and_it_is_said(tmp_path: Path) -> None:
    rows = polars.DataFrame({"run": ["a"] * 1000 + ["b"] * 10, "step": [*range(1000), *range(10)]})
    kept = data.thin(rows)
    a = kept.filter(polars.col("run") == "a")["step"].to_list()
    assert len(a) <= data.MOST + 1
    assert (a[0], a[-1]) == (0, 999)
    assert kept.filter(polars.col("run") == "b").height == 10
    assert "thinned" in data.describe_thinning(rows)
    assert data.describe_thinning(kept.head(100)) == ""


def test_the_median_ends_where_the_first_seed_does() -> None:
    rows = polars.DataFrame(
        {
            "arm": ["x"] * 5,
            "run": ["x0"] * 3 + ["x1"] * 2,
            "step": [0, 1, 2, 0, 1],
            "loss": [5.0, 4.0, 3.0, 5.0, 4.5],
        }
    )
    assert data.compute_medians(rows, ["loss"]).rows() == [("x", 0, 5.0), ("x", 1, 4.25)]


def test_numbers_are_short_and_finite() -> None:
    table = data.convert_table(polars.DataFrame({"a": [1 / 3, float("inf"), None, 2.0], "b": ["x"] * 4}))
    assert table.rows == [[0.333333, "x"], [None, "x"], [None, "x"], [2, "x"]]


def test_a_failed_report_leaves_the_old_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = tmp_path / "report.html"
    page.write_text("old")
    monkeypatch.setattr(assets, "read_script", lambda: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        write(compare([arm(tmp_path, "muon", "muon", course(0.2, 3, 0))]), page)
    assert page.read_text() == "old"


def test_runs_are_found_as_compare_finds_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SpecError, match="no run `nothing`"):
        report([Path("nothing")], output=Path("x.html"), targets=(), reference=None, title=None)
    run = arm(tmp_path, "one", "muon", course(0.2, 3, 0)).directory
    with pytest.raises(SpecError, match="elsewhere"):
        report([run], output=Path("x.html"), targets=(), reference="elsewhere", title=None)
    assert not Path("x.html").exists()


def test_without_the_packages_that_draw_it_is_said(tmp_path: Path) -> None:
    code = (
        "import sys, importlib.util\n"
        "found = importlib.util.find_spec\n"
        "importlib.util.find_spec = lambda name, *rest: None if name == 'altair' else found(name, *rest)\n"
        "sys.argv = ['gnflow', 'report', 'run']\n"
        "from gnflow.cli import main\n"
        "main()\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == EnvironmentProblem.exit_code
    assert "pip install 'gnflow[plots]'" in done.stderr
    assert "Traceback" not in done.stderr


def test_runs_without_a_target_have_a_page_about_equal_budgets(tmp_path: Path) -> None:
    losses = {"full_gn": ("gauss_newton", [4.9, 4.0, 3.4]), "muon": ("muon", [4.9, 4.5, 4.2, 3.9])}
    runs = [
        Run.load(finished(tmp_path / name, experiment(optimizer, target=None), steps(course)))
        for name, (optimizer, course) in losses.items()
    ]
    page = write(compare(runs), tmp_path / "out" / "report.html").page.read_text()
    assert "full_gn and muon: at equal budgets" in page
    assert "<h2>Equal budgets</h2>" in page
    assert "The loss of full_gn is 0.800 below that of muon at 295k tokens (1 seed: no interval" in page
    assert re.search(r"<td[^>]*>295k</td><td[^>]*>tokens</td><td[^>]*>3\.4000</td><td[^>]*>4\.2000</td>", page)
    assert "+0.8000" in page
    assert "Grey: the target" not in page
    assert "To a held-out loss of" not in page


def test_the_page_leads_with_the_answer_and_one_figure(made: Made) -> None:
    body = made.own.partition("</style>")[2]
    order = [
        body.index(mark)
        for mark in ("<h1>", 'class="verdict"', "<figure", 'class="matrix"', "<nav>", '<details class="section"')
    ]
    assert order == sorted(order)
    assert body.count('class="verdict"') == 1
    assert not re.findall(r"<details[^>]* open", body)


def test_many_arms_have_a_panel_for_each_method_and_shades_of_its_colour(tmp_path: Path) -> None:
    (tmp_path / ".git").mkdir()
    names = [f"{method}_{batch}k" for method in ("adamw", "muon", "soap") for batch in (2, 8, 32)]
    runs = [
        arm(tmp_path, name, {"kind": "muon", "momentum": 0.5 + 0.01 * place}, course(0.2, 12, 0))
        for place, name in enumerate(names)
    ]
    charts = {chart.name: chart for chart in make_charts(compare(runs, [3.5]))}
    losses = charts["losses"]
    assert set(losses.tables["groups"]["group"]) == {"adamw", "muon", "soap"}
    assert set(losses.tables["groups"].filter(polars.col("last"))["level"]) == {"2k", "8k", "32k"}
    assert losses.still["facet"]["field"] == "group"  # type: ignore[index]
    colours = list_colours(names)
    assert len(set(colours)) == 9
    assert (
        assets.draw_svg(
            {**losses.still, "datasets": {name: data.make_records(rows) for name, rows in losses.tables.items()}}
        ).count(">32k</text>")
        == 3
    )


def test_a_schedule_is_drawn_as_parts_of_its_largest_rate(tmp_path: Path) -> None:
    def fall(step: int) -> dict[str, float]:
        return {"learning_rate": 0.02 * (1 - step / 10)}

    run = arm(tmp_path, "muon", "muon", course(0.2, 5, 0), extra=fall)
    [chart] = [chart for chart in make_charts(compare([run], [3.5])) if chart.name == "schedules"]
    found = chart.tables["schedules"]
    assert found["part"].to_list() == pytest.approx([1, 8 / 9, 7 / 9, 6 / 9, 5 / 9])
    assert found["progress"].to_list() == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0])


def test_every_combination_of_buttons_has_a_view(made: Made, tmp_path: Path) -> None:
    free = {"target": None}
    ended = [
        Run.load(finished(tmp_path / name, experiment(name, **free), steps([4.9, loss], searched=0)))
        for name, loss in (("muon", 4.0), ("soap", 4.2))
    ]
    for chart in (*make_charts(compare(ended, budget=131_072.0)), *make_charts(comparison(tmp_path / "two"))):
        chosen = [" ".join(options) for options in itertools.product(*(choice.options for choice in chart.choices))]
        assert list(chart.views) == chosen, chart.name
