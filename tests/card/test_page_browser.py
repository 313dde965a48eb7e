"""The card in a browser: on a phone and a desk, light and dark."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.card.fakes import MARKUP, full_card
from tests.card.test_page import hostile
from tests.lab.test_report_browser import FLAGS, _brightness, _find, _open

webdriver = pytest.importorskip("selenium.webdriver")

WIDTHS = (1280, 390)
SCHEMES = ("light", "dark")


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("card")
    made = {
        "one": full_card("A model of a name that is rather long for a phone").to_html(),
        "two": full_card("plain").to_html(against=full_card("dispersed")),
        "hostile": hostile().to_html(),
    }
    for name, page in made.items():
        (folder / f"{name}.html").write_text(page, encoding="utf-8")
    return {name: folder / f"{name}.html" for name in made}


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = _find("chromium", "chromium-browser", "google-chrome")
    for flag in (*FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('profile')}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(_find("chromedriver")))
    yield driver
    driver.quit()


CONTRAST = """const parse = c => c.match(/[\\d.]+/g).map(Number);
  const light = c => { const [r, g, b] = parse(c).map(v => v / 255)
    .map(v => v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b; };
  const behind = item => { for (let e = item; e; e = e.parentElement) {
    const c = getComputedStyle(e).backgroundColor; if (parse(c)[3] !== 0) return c; } };
  return [...document.querySelectorAll('p, th, td, a, .badge, code, summary, figcaption, button, li, small')]
    .filter(item => item.textContent.trim() && item.getClientRects().length)
    .map(item => { const [a, b] = [light(getComputedStyle(item).color), light(behind(item))];
      return [(Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05), item.outerHTML.slice(0, 120)]; })
    .filter(([ratio]) => ratio < 4.5)"""

OUTSIDE = """return [...document.querySelectorAll('main *, header *')].filter(item => {
    const box = item.getBoundingClientRect();
    return box.width && !item.closest('.log, .theme') && (box.right > innerWidth + 1 || box.left < -1);
  }).map(item => item.outerHTML.slice(0, 200))"""


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("name", ["one", "two", "hostile"])
def test_it_fits_and_can_be_read(browser: Any, pages: dict[str, Path], name: str, width: int, scheme: str) -> None:
    _open(browser, pages[name], width, scheme)
    assert browser.execute_script("return window.innerWidth") == width
    browser.execute_script("document.querySelectorAll('details').forEach(item => item.open = true)")
    assert browser.execute_script("return document.documentElement.scrollWidth") <= width
    assert browser.execute_script(OUTSIDE) == []
    assert browser.execute_script(CONTRAST) == []
    background = str(browser.execute_script("return getComputedStyle(document.body).backgroundColor"))
    assert (_brightness(background) < 60) == (scheme == "dark")
    assert browser.get_log("browser") == []


@pytest.mark.parametrize("width", WIDTHS)
def test_the_failure_and_what_to_try_are_on_the_first_screen(browser: Any, pages: dict[str, Path], width: int) -> None:
    _open(browser, pages["one"], width)
    for selector in ("h1", "#answer", ".rows .badge.fails", ".rows .try"):
        box = browser.find_element("css selector", selector).rect
        assert 0 < box["y"] < 900 - box["height"]
    outcome = browser.find_element("css selector", ".rows .badge.fails")
    assert outcome.text == "fails", "a word, and not a colour alone"
    assert outcome.find_element("css selector", "svg").size["width"] > 12


def test_figures_are_read_in_whole_words_on_a_phone(browser: Any, pages: dict[str, Path]) -> None:
    """Of two models a table has five columns: what a figure means has a line of its own."""
    _open(browser, pages["two"], 390)
    for cell in browser.find_elements("css selector", ".measures tbody td:last-child"):
        assert cell.size["width"] > 200


def test_the_code_is_copied_and_the_folded_reason_found(browser: Any, pages: dict[str, Path]) -> None:
    _open(browser, pages["one"], 1280)
    from selenium.webdriver.support.ui import WebDriverWait

    button = browser.find_element("css selector", ".copy")
    browser.execute_script("arguments[0].scrollIntoView()", button)
    button.click()
    WebDriverWait(browser, 20).until(lambda _: button.text in ("Copied", "Selected"))
    link = browser.find_element("css selector", '.left a[href="#not-asked"]')
    browser.execute_script("arguments[0].click()", link)
    WebDriverWait(browser, 20).until(lambda _: browser.find_element("css selector", "#not-asked table").is_displayed())


def test_it_asks_for_nothing_and_is_whole_without_script(browser: Any, pages: dict[str, Path]) -> None:
    browser.get_log("performance")
    _open(browser, pages["hostile"], 1280, script=False)
    sent = [entry["message"] for entry in browser.get_log("performance")]
    requests = [message for message in sent if '"Network.requestWillBeSent"' in message]
    assert requests
    assert not [message for message in requests if '"url":"http' in message]
    browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": False})
    assert browser.get_log("browser") == []
    assert browser.find_element("css selector", "h1").text == MARKUP
    assert browser.find_element("css selector", ".code pre").is_displayed()
    assert not browser.find_element("css selector", ".copy").is_displayed()
