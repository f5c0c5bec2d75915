"""The page as a reader has it: drawn, answering, silent on the network, and whole on paper."""

import base64
import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import hostile
import pytest
from reports import TARGETS, comparison

from gnflow.study.report.charts.every import NAMES
from gnflow.study.report.write import write

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(
        CHROMIUM is None or DRIVER is None, reason="needs chromium and chromedriver (apt-get install chromium-driver)"
    ),
]

UNDRAWN = ("differences", "schedules")  # the runs have a target, and constant rates
DRAWN = [name for name in NAMES if name not in UNDRAWN]
PATIENCE = 60  # seconds
TITLE = "Two <arms><img src=x onerror=document.title='taken'></title><script>document.title='taken'</script>"
# Charts whose marks are one symbol for each row of a table.
POINTS = {
    "losses": "losses", "step_lengths": "step_lengths", "gain_ratios": "gain_ratios", "decreases": "decreases",
    "dominance": "dominance", "curvature": "curvature", "conflict": "conflict", "modalities": "modalities",
}  # fmt: skip


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("project")
    return write(comparison(root), root / "report.html", TITLE).page


@pytest.fixture(scope="module")
def browser(page: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[object]:
    """Chromium with the page open and drawn."""
    from selenium.webdriver import Chrome, ChromeOptions
    from selenium.webdriver.chrome.service import Service

    options = ChromeOptions()
    options.binary_location = str(CHROMIUM)
    for flag in (
        "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
        "--disable-background-networking", "--disable-component-update", "--window-size=1280,1000",
        f"--user-data-dir={tmp_path_factory.mktemp('profile')}",
    ):  # fmt: skip
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    chrome = Chrome(options=options, service=Service(str(DRIVER)))
    chrome.set_page_load_timeout(PATIENCE)
    chrome.get("about:blank")
    chrome.get_log("performance")  # what the browser's own first page asked for
    chrome.get(page.as_uri())
    wait_until_drawn(chrome)
    yield chrome
    chrome.quit()


def wait_until_drawn(browser) -> None:
    from selenium.webdriver.support.ui import WebDriverWait

    WebDriverWait(browser, PATIENCE).until(
        lambda driver: driver.execute_script("return 'ready' in document.documentElement.dataset")
    )
    browser.execute_script("for (const part of document.querySelectorAll('details')) part.open = true")
    WebDriverWait(browser, PATIENCE).until(
        lambda driver: driver.execute_script(
            "return document.querySelectorAll('figure.drawn').length == document.querySelectorAll('figure[id]').length"
        )
    )


def rows(page: Path) -> dict[str, int]:
    """Rows of each table of the page."""
    found = re.search(r'id="charts">(.*?)</script>', page.read_text(), re.DOTALL)
    assert found
    return {name: len(table["rows"]) for name, table in json.loads(found[1])["tables"].items()}


def marks(browser, chart: str, kind: str) -> int:
    return browser.execute_script(
        "return document.querySelectorAll(arguments[0]).length", f"#chart-{chart} .live svg .{kind} path"
    )


def titles(browser, chart: str) -> list[str]:
    return browser.execute_script(
        "return [...document.querySelectorAll(arguments[0])].map(title => title.textContent)",
        f"#chart-{chart} .live .role-axis-title text",
    )


def choose(browser, chart: str, option: str) -> None:
    from selenium.webdriver.common.by import By
    from selenium.webdriver.support.ui import WebDriverWait

    figure = browser.find_element(By.ID, f"chart-{chart}")
    button = figure.find_element(By.CSS_SELECTOR, f"input[value='{option}']")
    browser.execute_script("arguments[0].scrollIntoView({block: 'center'})", button)
    button.click()
    WebDriverWait(browser, PATIENCE).until(lambda driver: option in str(figure.get_attribute("data-drawn")))


def test_every_chart_is_drawn_with_a_mark_for_each_point(browser, page: Path) -> None:
    there = rows(page)
    drawn = browser.execute_script(
        "return [...document.querySelectorAll('figure.drawn')].map(figure => figure.id.slice(6))"
    )
    assert sorted(drawn) == sorted(DRAWN)
    assert {name: marks(browser, name, "mark-symbol.role-mark") for name in POINTS} == {
        name: there[table] for name, table in POINTS.items()
    }
    assert marks(browser, "losses", "mark-line") == 4 + 2  # seeds, and the medians of the arms
    assert marks(browser, "profiles", "mark-line") == 2
    headline = there["ratios"] // len(TARGETS) // 5  # of one cost
    assert marks(browser, "ratios", "mark-symbol.role-mark") >= headline
    assert marks(browser, "batch_size", "mark-symbol.role-mark") == there["batches"] + there["batch_medians"]


def test_no_request_leaves_and_nothing_is_complained_about(browser, page: Path) -> None:
    events = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    asked = {
        event["params"]["request"]["url"].partition(",")[0]
        for event in events
        if event["method"] == "Network.requestWillBeSent"
    }
    assert {url for url in asked if not url.startswith(("data:image/svg+xml", "data:image/png"))} <= {page.as_uri()}
    assert page.as_uri() in asked
    assert browser.get_log("browser") == []
    refused = browser.execute_async_script(
        "const done = arguments[0]; fetch('http://127.0.0.1:9/').then(() => done('sent'), () => done('refused'))"
    )
    assert refused == "refused"
    assert "Content Security Policy" in json.dumps(browser.get_log("browser"))


def test_buttons_change_the_axis(browser) -> None:
    assert titles(browser, "losses") == ["steps", "held-out loss"]
    choose(browser, "losses", "FLOPs")
    assert titles(browser, "losses") == ["FLOPs", "held-out loss"]
    linear = marks(browser, "losses", "mark-symbol.role-mark")
    choose(browser, "losses", "log")
    assert marks(browser, "losses", "mark-symbol.role-mark") == linear - 4  # a run's first point has cost nothing
    choose(browser, "ratios", "4")
    assert titles(browser, "ratios")[0].endswith("to 4")


def test_the_legend_picks_an_arm(browser) -> None:
    faint = "return document.querySelectorAll('#chart-step_lengths .live .mark-symbol path[opacity=\"0.06\"]').length"
    seen = (
        "return [...document.querySelectorAll('#chart-losses .live .mark-line path')]"
        ".map(path => path.getAttribute('opacity'))"
    )
    assert browser.execute_script(faint) == 0
    before = browser.execute_script(seen)
    browser.execute_script(
        "const label = [...document.querySelectorAll('#chart-losses .live .role-legend-label text')]"
        ".find(text => text.textContent == 'muon');"
        "label.dispatchEvent(new MouseEvent('click', {bubbles: true}))"
    )
    after = browser.execute_script(seen)
    assert "0.06" not in before
    assert after.count("0.06") == 3  # both seeds of the other arm, and its median


def test_hostile_names_stay_text_even_where_they_are_pointed_at(browser, page: Path, tmp_path: Path) -> None:
    try:
        browser.get(hostile.page(tmp_path).as_uri())
        wait_until_drawn(browser)
        browser.execute_script(
            "for (const mark of document.querySelectorAll('.live svg path')) "
            "for (const kind of ['pointerover', 'mouseover', 'pointermove', 'mousemove']) "
            "mark.dispatchEvent(new PointerEvent(kind, {bubbles: true, clientX: 200, clientY: 200}))"
        )
        tooltip = browser.execute_script("return document.querySelector('#vg-tooltip-element').textContent")
        assert any(name in tooltip for name in hostile.NAMES)
        assert browser.title == hostile.NAMES[0]
        added = "return document.querySelectorAll('[onerror], [onload], iframe, b').length"
        assert browser.execute_script(added) == 0
        assert browser.get_log("browser") == []
    finally:
        browser.get(page.as_uri())
        wait_until_drawn(browser)


def test_the_title_is_text(browser) -> None:
    assert browser.title == TITLE
    assert browser.execute_script("return document.querySelector('h1').textContent") == TITLE
    assert browser.execute_script("return document.documentElement.scrollWidth <= window.innerWidth")


def sheet(browser) -> list[object]:
    """Whether the sheet of samples is seen, its own width, and that on the page."""
    return browser.execute_script(
        "const image = document.querySelector('img.sheet');"
        "return [image.getClientRects().length > 0, image.naturalWidth, image.width]"
    )


def test_the_sheet_of_samples_is_seen_as_it_is(browser) -> None:
    assert sheet(browser) == [True, 144, 144]  # two images of 8 pixels and a line, each pixel 8 wide


def test_on_paper_there_are_stills_and_no_buttons(browser) -> None:
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
    try:
        shown = browser.execute_script(
            "const seen = e => e.getClientRects().length > 0;"
            "return [...document.querySelectorAll('figure[id]')].map(f => ["
            "seen(f.querySelector('.still')) && f.querySelector('.still').naturalWidth > 0,"
            "[...f.querySelectorAll('.live, .choices')].some(seen)])"
        )
        assert shown == [[True, False]] * len(DRAWN)
        assert sheet(browser)[:2] == [True, 144]
        pdf = base64.b64decode(browser.execute_cdp_cmd("Page.printToPDF", {})["data"])
    finally:
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": ""})
    assert pdf.startswith(b"%PDF")
    pages = len(re.findall(rb"/Type\s*/Page\b(?!s)", pdf))
    assert pages >= 5
    assert len(pdf) > 50_000


def test_without_scripts_the_stills_are_there(browser, page: Path) -> None:
    browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": True})
    try:
        browser.get(page.as_uri())
    finally:
        browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": False})
    heights = browser.execute_script("return [...document.querySelectorAll('img.still')].map(image => image.height)")
    assert len(heights) == len(DRAWN)
    assert min(heights) > 100
