import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from mirroring import free_port, mlflow_warnings, replay
from run_directories import BEGAN, experiment, finished, steps

from gnflow.workspace import Workspace

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")

pytestmark = [
    mlflow_warnings,
    pytest.mark.browser,
    pytest.mark.skipif(
        CHROMIUM is None or DRIVER is None, reason="needs chromium and chromedriver (apt-get install chromium-driver)"
    ),
]

PATIENCE = 90  # seconds


@pytest.fixture
def page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The address of the charts, as `gnflow ui` prints it, over a store with two mirrored runs."""
    (tmp_path / ".git").mkdir()
    arms = {
        "full_gn": ("gauss_newton", steps([4.9, 4.4, 4.1, 3.9, 3.75, 3.6, 3.5, 3.4])),
        "muon": ("muon", steps([4.9 - 0.05 * step for step in range(30)], began=BEGAN + 999, passes=1, searched=0)),
    }
    for name, (optimizer, records) in arms.items():
        replay(finished(tmp_path / "runs" / name, experiment(optimizer), records), Workspace(tmp_path))
    (tmp_path / "deeper").mkdir()
    process = subprocess.Popen(
        [
            sys.executable,
            "-c",
            f"from gnflow.commands.ui import serve_ui; raise SystemExit(serve_ui(port={free_port()}))",
        ],
        cwd=tmp_path / "deeper",
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    try:
        for line in process.stdout:
            if "charts of gnflow:" in line:
                yield line.split()[-1]
                break
        else:
            pytest.fail("`gnflow ui` ended without an address")
    finally:
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 0
        process.stdout.close()


@pytest.fixture
def browser(tmp_path: Path) -> Iterator[object]:
    from selenium.webdriver import Chrome, ChromeOptions
    from selenium.webdriver.chrome.service import Service

    options = ChromeOptions()
    options.binary_location = str(CHROMIUM)
    for flag in (
        "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
        "--disable-background-networking", "--disable-component-update", "--window-size=1600,1400",
        f"--user-data-dir={tmp_path / 'profile'}",
    ):  # fmt: skip
        options.add_argument(flag)
    chrome = Chrome(options=options, service=Service(str(DRIVER)))
    chrome.set_page_load_timeout(PATIENCE)
    yield chrome
    chrome.quit()


def test_the_ui_lists_the_runs_and_draws_their_loss(page: str, browser, tmp_path: Path) -> None:
    from selenium.common.exceptions import NoSuchElementException
    from selenium.webdriver.common.by import By
    from selenium.webdriver.support.ui import WebDriverWait

    # The card of one metric: the smallest element with its title that holds a plot.
    card = (
        "//*[normalize-space(text())='loss/held_out']"
        "/ancestor::*[.//*[contains(concat(' ', @class, ' '), ' js-plotly-plot ')]][1]"
    )

    def marks(driver) -> int:
        """Points drawn in the chart of the metric."""
        return len(driver.find_element(By.XPATH, card).find_elements(By.CSS_SELECTOR, "svg .scatterlayer path.point"))

    browser.get(page)
    try:
        wait = WebDriverWait(browser, PATIENCE, ignored_exceptions=[NoSuchElementException])
        wait.until(lambda driver: marks(driver) == 8 + 30)
        chart = browser.find_element(By.XPATH, card)
        browser.execute_script("arguments[0].scrollIntoView({block: 'center'})", chart)
        lines = [line.get_attribute("d") for line in chart.find_elements(By.CSS_SELECTOR, "path.js-line")]
        names = {link.text for link in browser.find_elements(By.CSS_SELECTOR, "a[href*='/runs/']")}
        text = browser.find_element(By.TAG_NAME, "body").text
    finally:
        browser.save_screenshot(str(tmp_path / "ui.png"))
    assert {"full_gn", "muon"} <= names
    assert "2 matching runs" in text
    assert {"full_gn (loss/held_out)", "muon (loss/held_out)"} <= set(text.splitlines())
    assert sum(line is not None and "L" in line for line in lines) >= 2
    assert (tmp_path / "ui.png").stat().st_size > 10_000
