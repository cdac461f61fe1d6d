"""The page of a comparison in a real browser: it runs without a fault, sorts, fits the screen and can be read."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from compare.made_up_results import BEST, FAILED, made_up

from gru4rec.compare.page import write_page

sync_api = pytest.importorskip("playwright.sync_api", reason="no playwright: pip install playwright")

CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium") or "/usr/bin/chromium"

pytestmark = pytest.mark.skipif(
    not Path(CHROMIUM).exists(), reason=f"no {CHROMIUM}: apt-get install chromium, or set CHROMIUM to its path"
)

FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
READ = 4.5  # contrast of text that everyone can read, WCAG 2.2 AA

OVERFLOWS = "() => [document.documentElement.scrollWidth, innerWidth]"
COLUMN = "(table, column) => [...table.tBodies[0].rows].map(row => row.cells[column]?.textContent.trim() ?? '')"
CONTRASTS = """(selectors) => {
  const numbers = colour => colour.match(/[\\d.]+/g).map(Number);
  const light = ([r, g, b]) => [r, g, b].map(v => v / 255)
    .map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
    .reduce((sum, v, at) => sum + v * [0.2126, 0.7152, 0.0722][at], 0);
  const behind = element => {
    for (; element; element = element.parentElement) {
      const colour = numbers(getComputedStyle(element).backgroundColor);
      if (colour.length === 3 || colour[3] > 0) return colour;
    }
    return [255, 255, 255];
  };
  return selectors.flatMap(selector => [...document.querySelectorAll(selector)].slice(0, 40).map(element => {
    const [a, b] = [light(numbers(getComputedStyle(element).color)), light(behind(element))];
    return [selector, (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05)];
  }));
}"""


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("page") / "report.html"
    write_page(made_up(candidates=100), path)
    return path.as_uri()


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with sync_api.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture
def opened(browser: Any, address: str) -> Iterator[Any]:
    """The page, 1280 px wide, with what it said and asked for."""
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    page = context.new_page()
    page.said, page.asked = [], []
    page.on("console", lambda message: page.said.append(message.text))
    page.on("pageerror", lambda error: page.said.append(str(error)))
    page.on("dialog", lambda dialog: page.said.append(dialog.message))
    page.on("request", lambda request: page.asked.append(request.url))
    page.goto(address)
    yield page
    context.close()


def test_page_says_nothing_on_the_console_and_asks_for_itself_only(opened: Any, address: str) -> None:
    opened.locator("#leaderboard th button").first.click()
    for summary in opened.locator("summary").all():
        summary.click()
    assert opened.said == []
    assert opened.asked == [address]


def test_every_figure_is_visible_and_drawn_in_the_ink_of_the_page(opened: Any) -> None:
    figures = opened.locator("figure > svg")
    assert figures.count() == 19
    for figure in figures.all():
        box = figure.bounding_box()
        assert figure.is_visible()
        assert min(box["width"], box["height"]) > 150
        assert figure.get_attribute("aria-label")
    ink = opened.evaluate("getComputedStyle(document.body).color")
    texts = opened.locator("figure > svg text")
    assert texts.count() > 100
    fills = texts.evaluate_all("all => all.map(text => getComputedStyle(text).fill)")
    assert set(fills) == {ink}
    drawn = opened.locator("figure > svg").first.evaluate(
        "svg => [...svg.querySelectorAll('path, use')].map(path => getComputedStyle(path).stroke)"
    )
    assert "rgb(13, 91, 56)" in drawn  # the third model's colour on white, by the page's variable


def test_swatches_of_the_key_are_drawn(opened: Any) -> None:
    for swatch in opened.locator("#figures .key svg").all():
        box = swatch.evaluate("svg => svg.getBBox().width")
        assert box > 30


@pytest.mark.parametrize("way", ["click", "Enter"])
def test_leaderboard_sorts_both_ways_with_failed_models_last(way: str, opened: Any) -> None:
    table = opened.locator("#leaderboard table")
    head = table.locator("th", has_text="Recall@20").first

    def press(head: Any) -> None:
        button = head.locator("button")
        if way == "click":
            button.click()
        else:
            button.focus()
            opened.keyboard.press("Enter")

    assert head.get_attribute("aria-sort") == "descending"
    before = table.evaluate(COLUMN, 1)[:-1]
    assert before == sorted(before, reverse=True)
    assert before[0] == "0.6200"
    press(head)
    assert head.get_attribute("aria-sort") == "ascending"
    assert table.evaluate(COLUMN, 1)[:-1] == before[::-1]
    assert FAILED in table.evaluate(COLUMN, 0)[-1]
    press(head)
    assert head.get_attribute("aria-sort") == "descending"
    assert table.evaluate(COLUMN, 1)[:-1] == before
    press(table.locator("th", has_text="Model"))
    assert head.get_attribute("aria-sort") is None
    assert table.locator("th[aria-sort]").count() == 1
    assert "_item kNN" in table.evaluate(COLUMN, 0)[0]
    assert FAILED in table.evaluate(COLUMN, 0)[-1]


def test_missing_values_sort_last_both_ways(opened: Any) -> None:
    table = opened.locator("#cost table")
    button = table.locator("th", has_text="Training").locator("button")
    button.click()
    assert table.evaluate(COLUMN, 1)[0] == "11.5 h"  # 2.1 x 3^9 s
    assert table.evaluate(COLUMN, 1)[-1] == "\u2013loading 0.3 s"
    button.click()
    assert table.evaluate(COLUMN, 1)[0] == "0 s"
    assert table.evaluate(COLUMN, 1)[-1] == "\u2013loading 0.3 s"
    assert table.locator("th", has_text="Memory it added").locator("button").count() == 0


def test_switch_of_list_lengths_and_of_slices_shows_what_is_picked(opened: Any) -> None:
    shown = "heads => heads.filter(head => head.offsetWidth).map(head => head.textContent.trim())"
    heads = opened.locator("#leaderboard thead th")
    assert heads.evaluate_all(shown)[-2:] == ["MRR@20", "NDCG@20"]
    opened.locator("label[for=k-5]").click()
    assert heads.evaluate_all(shown)[-3:] == ["Recall@5", "MRR@5", "NDCG@5"]
    assert opened.locator("#slices figure:visible").count() == 10
    opened.locator("label[for=slice-2]").click()
    assert opened.locator("#slices figure:visible").count() == 2
    assert "item support" in opened.locator("#slices figure:visible").first.text_content()


def test_copy_button_copies_the_command(opened: Any, address: str) -> None:
    opened.context.grant_permissions(["clipboard-read", "clipboard-write"])
    opened.locator("#repeat .copier").first.click()
    opened.get_by_text("Copied").wait_for()
    assert opened.evaluate("navigator.clipboard.readText()") == "gru4rec compare shop.toml -o out"


@pytest.mark.parametrize("width", [360, 1280])
def test_page_never_scrolls_sideways(width: int, opened: Any) -> None:
    opened.set_viewport_size({"width": width, "height": 800})
    for details in opened.locator("details").all():
        details.evaluate("element => { element.open = true; }")
    scroll_width, inner_width = opened.evaluate(OVERFLOWS)
    assert scroll_width <= inner_width == width


def test_wide_tables_scroll_in_their_own_box_on_a_phone(opened: Any) -> None:
    opened.set_viewport_size({"width": 360, "height": 800})
    box = opened.locator("#leaderboard .box")
    assert box.evaluate("box => box.scrollWidth - box.clientWidth") > 100
    box.evaluate("box => { box.scrollLeft = 200; }")
    assert box.evaluate("box => box.scrollLeft") == 200
    name = opened.locator("#leaderboard tbody th").first.bounding_box()
    assert name["x"] >= 0  # stays in sight
    image = box.evaluate("box => getComputedStyle(box).backgroundImage")
    assert image.count("linear-gradient") == 4, "a shadow at each end, and what hides it where the table ends"


def test_leaderboard_fits_a_desktop(opened: Any) -> None:
    box = opened.locator("#leaderboard .box")
    assert box.evaluate("box => box.scrollWidth - box.clientWidth") <= 0


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_has_contrast(scheme: str, opened: Any) -> None:
    opened.emulate_media(color_scheme=scheme)
    papers = {"light": "rgb(255, 255, 255)", "dark": "rgb(24, 27, 31)"}
    assert opened.evaluate("getComputedStyle(document.body).backgroundColor") == papers[scheme]
    selectors = [
        "h1", "p", "td", "th", "th button", ".sub", ".kind", "a", "figcaption", ".finding b", ".banner b", "dt", "dd",
        "legend", "label", "summary", "pre", ".copier", ".seen", ".target bdi", ".failed", ".key bdi", "figure svg",
    ]  # fmt: skip
    measured = opened.evaluate(CONTRASTS, selectors)
    assert {selector for selector, _ in measured} == set(selectors)
    assert [(selector, contrast) for selector, contrast in measured if contrast < READ] == []


def test_page_without_scripts_shows_everything(browser: Any, address: str) -> None:
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(address)
    assert BEST in page.locator(".verdict").text_content()
    assert page.locator("figure > svg:visible").count() == 19
    assert page.locator("#leaderboard tbody tr:visible").count() == 10
    assert page.locator("button").count() == 0
    page.locator("label[for=k-5]").click()
    assert page.locator("#leaderboard th", has_text="NDCG@5").is_visible()
    context.close()


def test_print_shows_whole_tables_on_white(opened: Any) -> None:
    opened.emulate_media(media="print", color_scheme="dark")
    assert opened.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert opened.evaluate("getComputedStyle(document.querySelector('.box')).overflowX") == "visible"
    assert opened.locator("nav").is_hidden()
