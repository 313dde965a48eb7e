from __future__ import annotations

import io
import os
import runpy
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from holdfast.lab.report import write_report

# Some studies here have a figure that breaks on purpose.
pytestmark = pytest.mark.filterwarnings("ignore::holdfast.lab.report.chapter.ReportWarning")

webdriver = pytest.importorskip("selenium.webdriver")

FLAGS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--hide-scrollbars",
)
WIDTHS = (1280, 390, 360)


def _find(*names: str) -> str:
    found = next(filter(None, map(shutil.which, names)), None)
    if found is None:
        message = f"none of {', '.join(names)} is installed"
        if os.environ.get("CI"):
            pytest.fail(message)
        pytest.skip(message)
    return found


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    sections = runpy.run_path(str(Path(__file__).with_name("test_report.py")))["sections"]()
    return write_report(sections, tmp_path_factory.mktemp("report") / "report.html")


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = _find("chromium", "chromium-browser", "google-chrome")
    for flag in FLAGS:
        options.add_argument(flag)
    options.add_argument(f"--user-data-dir={tmp_path_factory.mktemp('profile')}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(_find("chromedriver")))
    yield driver
    driver.quit()


def _open(browser: Any, report: Path, width: int, scheme: str = "light", *, script: bool = True) -> None:
    metrics = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 600}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    _prefer(browser, scheme)
    browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": not script})
    browser.get(report.as_uri())


def _prefer(browser: Any, scheme: str) -> None:
    feature = {"name": "prefers-color-scheme", "value": scheme}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [feature]})


def _background(browser: Any) -> str:
    return str(browser.execute_script("return getComputedStyle(document.body).backgroundColor"))


@pytest.mark.parametrize("width", WIDTHS)
def test_fits_its_window(browser: Any, report: Path, width: int) -> None:
    _open(browser, report, width)
    assert browser.get_log("browser") == []
    assert browser.execute_script("return window.innerWidth") == width
    overflow = "return document.documentElement.scrollWidth"
    assert browser.execute_script(overflow) <= width
    browser.execute_script("document.querySelectorAll('details').forEach(item => item.open = true)")
    assert browser.execute_script(overflow) <= width


@pytest.mark.parametrize("width", WIDTHS)
def test_nothing_sticks_out(browser: Any, report: Path, width: int) -> None:
    _open(browser, report, width)
    outside = browser.execute_script(
        """return [...document.querySelectorAll('main *')].filter(item => {
             const box = item.getBoundingClientRect();
             return box.width && !item.closest('.scroll, .log, details') && !item.matches('thead, thead *')
               && (box.right > innerWidth + 1 || box.left < -1);
           }).map(item => item.outerHTML.slice(0, 200))"""
    )
    assert outside == []


@pytest.mark.parametrize("width", WIDTHS)
def test_answers_are_the_first_thing_seen(browser: Any, report: Path, width: int) -> None:
    _open(browser, report, width)
    top = browser.execute_script("return document.getElementById('answers').getBoundingClientRect().top")
    assert 0 < top < 400
    found = browser.execute_script(
        "const box = document.querySelector('.found li').getBoundingClientRect(); return [box.width, box.bottom]"
    )
    assert found[0] > 200
    assert found[1] < 900


def test_a_folded_page_is_short(browser: Any, report: Path) -> None:
    _open(browser, report, 1280)
    studies = browser.execute_script("return document.querySelectorAll('section.study').length")
    assert studies == 3
    assert browser.execute_script("return document.documentElement.scrollHeight") <= 1500 + 700 * studies


VISIBLE = """return [...document.querySelectorAll('[data-status]')].filter(item => item.checkVisibility({
    contentVisibilityAuto: true})).map(item => item.dataset.status)"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", WIDTHS[:2])
def test_claims_are_searched_and_filtered(browser: Any, report: Path, width: int, scheme: str) -> None:
    _open(browser, report, width, scheme)
    folded = browser.execute_script(VISIBLE)
    words = browser.find_element("css selector", "#find-words")
    words.send_keys("BILLION parameters")
    assert browser.execute_script(VISIBLE) == ["unjudged"], "a folded claim is found and unfolded"
    told = browser.find_element("css selector", "#find-told")
    assert told.text == "1 of 9 claims"
    browser.find_element("css selector", "#find button").click()
    from selenium.webdriver.support.ui import WebDriverWait

    WebDriverWait(browser, 20).until(lambda _: told.text == "")
    assert browser.execute_script(VISIBLE) == folded
    browser.find_element("css selector", ".bar .tally.inconclusive").click()
    assert set(browser.execute_script(VISIBLE)) == {"inconclusive"}
    browser.find_element("css selector", "#find-study option:last-child").click()
    assert browser.execute_script(VISIBLE) == ["inconclusive"]


def test_a_link_to_a_folded_claim_unfolds_it(browser: Any, report: Path) -> None:
    _open(browser, report, 1280)
    place = browser.execute_script("return document.querySelector('.fold [data-status=unjudged]').id")
    browser.execute_script("location.hash = arguments[0]", place)
    from selenium.webdriver.support.ui import WebDriverWait

    WebDriverWait(browser, 20).until(lambda _: browser.find_element("id", place).is_displayed())


@pytest.mark.parametrize("width", WIDTHS)
def test_figures_are_drawn_and_legible(browser: Any, report: Path, width: int) -> None:
    _open(browser, report, width)
    browser.execute_script("document.querySelectorAll('details').forEach(item => item.open = true)")
    boxes = browser.execute_script(
        """return [...document.querySelectorAll('figure:not(.first) svg.plot')].map(item => {
             const box = item.getBoundingClientRect();
             const text = [...item.querySelectorAll('text')].map(text => text.getBoundingClientRect());
             const card = item.closest('figure').getBoundingClientRect();
             return {
               width: box.width, height: box.height, labels: text.length,
               smallest: Math.min(...text.map(t => Math.min(t.width, t.height))),
               clipped: text.filter(
                 t => t.left < card.left || t.right > card.right || t.top < card.top
               ).length,
             };
           })"""
    )
    assert len(boxes) == 3
    for box in boxes:
        assert box["width"] > 0.75 * min(width, 500)
        assert box["height"] > 150
        assert box["labels"] > 5
        assert box["smallest"] > 4
        assert box["clipped"] == 0
    whiskers = "return [...document.querySelectorAll('.whisker')].map(item => item.getBoundingClientRect().width)"
    assert min(browser.execute_script(whiskers)) > 100


def test_dark_mode(browser: Any, report: Path) -> None:
    _open(browser, report, 1280, "light")
    ink = "return getComputedStyle(document.querySelector('svg.plot text')).fill"
    light, light_ink = _background(browser), browser.execute_script(ink)
    _prefer(browser, "dark")
    dark, dark_ink = _background(browser), browser.execute_script(ink)
    assert dark != light
    assert dark_ink != light_ink
    assert _brightness(light) > 230 > 60 > _brightness(dark)
    assert _brightness(dark_ink) > 200 > 60 > _brightness(light_ink)
    browser.execute_script("document.getElementById('theme-light').click()")
    assert _background(browser) == light
    _prefer(browser, "light")
    browser.execute_script("document.getElementById('theme-dark').click()")
    assert _background(browser) == dark


def _brightness(colour: str) -> float:
    numbers = colour[colour.index("(") + 1 : -1].split(",")[:3]
    return sum(map(float, numbers)) / 3


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_has_contrast(browser: Any, report: Path, scheme: str) -> None:
    _open(browser, report, 1280, scheme)
    low = browser.execute_script(
        """const parse = c => c.match(/[\\d.]+/g).map(Number);
           const light = c => { const [r, g, b] = parse(c).map(v => v / 255)
             .map(v => v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
             return 0.2126 * r + 0.7152 * g + 0.0722 * b; };
           const behind = item => { for (let e = item; e; e = e.parentElement) {
             const c = getComputedStyle(e).backgroundColor; if (parse(c)[3] !== 0) return c; } };
           const text = 'p, th, td, dt, dd, a, .badge, code, summary, figcaption, label span';
           return [...document.querySelectorAll(text)]
             .filter(item => item.textContent.trim() && item.getClientRects().length)
             .map(item => { const [a, b] = [light(getComputedStyle(item).color), light(behind(item))];
               return [(Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05), item.outerHTML.slice(0, 120)]; })
             .filter(([ratio]) => ratio < 4.5)"""
    )
    assert low == []


def test_icons_are_drawn(browser: Any, report: Path) -> None:
    _open(browser, report, 1280)
    from PIL import Image

    for status in ("supported", "contradicted", "inconclusive"):
        icon = browser.find_element("css selector", f".badge.{status} svg")
        image = Image.open(io.BytesIO(icon.screenshot_as_png)).convert("L")
        # A disc with its mark lost would be of one tone from the middle outwards.
        assert len({value // 64 for value in image.crop((4, 4, 12, 12)).tobytes()}) > 1


def test_data_can_be_downloaded(browser: Any, report: Path, tmp_path: Path) -> None:
    _open(browser, report, 1280)
    browser.execute_cdp_cmd("Browser.setDownloadBehavior", {"behavior": "allow", "downloadPath": str(tmp_path)})
    browser.execute_script("document.querySelector('a[download$=\"kept.csv\"]').click()")
    from selenium.webdriver.support.ui import WebDriverWait

    file = tmp_path / "solutions-laptop-kept.csv"
    WebDriverWait(browser, 20).until(lambda _: file.exists() and file.stat().st_size)
    assert file.read_text("utf-8").startswith("optimiser,kept,note\n")


def test_the_command_is_selected_whole(browser: Any, report: Path) -> None:
    _open(browser, report, 1280)
    from selenium.webdriver import ActionChains
    from selenium.webdriver.common.by import By

    command = browser.find_element(By.CSS_SELECTOR, "details:not(.fold) > summary > .command")
    ActionChains(browser).scroll_to_element(command).click(command).perform()
    assert str(browser.execute_script("return getSelection().toString()")).strip() == command.text


def test_is_complete_without_script_and_asks_for_nothing(browser: Any, report: Path) -> None:
    browser.get_log("performance")
    _open(browser, report, 1280, script=False)
    sent = [entry["message"] for entry in browser.get_log("performance")]
    requests = [message for message in sent if '"Network.requestWillBeSent"' in message]
    assert requests
    assert not [message for message in requests if '"url":"http' in message]
    browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": False})
    assert browser.get_log("browser") == []
    assert not browser.find_element("id", "find").is_displayed()
    browser.execute_script("document.querySelectorAll('details').forEach(item => item.open = true)")
    hidden = "return [...document.querySelectorAll('[data-status]')].filter(item => !item.checkVisibility()).length"
    assert browser.execute_script(hidden) == 0
