"""The page of a backtest in a real browser: it loads nothing else, fits the screen and can be read."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gru4rec.backtest.figures import _whole_windows
from gru4rec.backtest.job import POLICIES, summary_of
from gru4rec.backtest.page import page_of, write_page
from gru4rec.config import hyper_parameters, setting_values
from gru4rec.errors import DataError
from gru4rec.update.settings import UpdateSettings

sync_api = pytest.importorskip("playwright.sync_api", reason="no playwright: pip install playwright")

CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium") or "/usr/bin/chromium"

FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"]
READ = 4.5  # contrast of text that everyone can read, WCAG 2.2 AA
STAND_OUT = 3.0  # of lines and marks

LIGHTNESS = """colour => {
  const parts = colour.match(/[\\d.]+/g).slice(0, 3).map(v => v / 255)
    .map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
  return parts[0] * 0.2126 + parts[1] * 0.7152 + parts[2] * 0.0722;
}"""


def made_up(*, n_windows: int = 3, title: str = "Backtest on shop.tsv") -> dict[str, Any]:
    """Results of a backtest whose numbers say nothing; one window has no new targets."""

    def row(place: int, window: int) -> dict[str, Any]:
        value = 0.3 - 0.05 * place - 0.01 * window
        quality = {"recall": {"20": 2 * value}, "mrr": {"20": value}}
        new = {"recall": {"20": None if window == 2 else value}, "share_of_lists": {"20": 0.4 * (place < 2)},
               "share_of_places": {"20": 0.1}, "n_targets": 3}  # fmt: skip
        return {"n_targets": 1000, "n_known": 900 - place, "all": quality, "known": quality, "new": new,
                "seconds": (50.0 * window, 10.0, 0.0)[place], "cpu_seconds": 9.0}  # fmt: skip

    windows = [
        {"window": window, "policies": {policy: row(place, window) for place, policy in enumerate(POLICIES)}}
        for window in range(1, n_windows + 1)
    ]
    settings = setting_values(hyper_parameters({}))
    part = {"n_sessions": 1_000, "n_events": 5_000, "n_items": 700, "n_new_items": 30, "first_start": 1_767_225_600}
    return {
        "format": "gru4rec-backtest", "format_version": 1, "title": title, "n_found": 0,
        "command": "gru4rec backtest shop.tsv -o " + "out/" * 60, "versions": {"gru4rec": "0"}, "rule": "5 parts",
        "log": {"n_events": 25_000, "n_sessions": 5_000, "n_items": 900, "digest": "0" * 32, "source": "shop.tsv"},
        "plan": {"settings": settings, "update_training": {**settings, "n_epochs": 2}, "cutoffs": [20],
                 "update": UpdateSettings().values, "ties": "standard", "device": "cpu", "threads": 1,
                 "engine": "auto", "precision": "float32"},
        "parts": [part] * (n_windows + 2), "first": row(0, 0), "windows": windows,
        "summary": summary_of(windows, ["20"]),
    }  # fmt: skip


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("page") / "backtest.html"
    write_page(made_up(), path)
    return path.as_uri()


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    if not Path(CHROMIUM).exists():
        pytest.skip(f"no {CHROMIUM}: apt-get install chromium, or set CHROMIUM to its path")
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
    page.on("request", lambda request: page.asked.append(request.url))
    page.goto(address)
    yield page
    context.close()


def test_page_says_nothing_on_the_console_and_asks_for_itself_only(opened: Any, address: str) -> None:
    assert opened.said == []
    assert opened.asked == [address]


def test_figures_are_visible_named_and_drawn_in_the_ink_of_the_page(opened: Any) -> None:
    figures = opened.locator("figure > svg")
    titles = [figure.get_attribute("aria-label") for figure in figures.all()]
    assert titles == [
        "MRR@20", "Recall@20", "Cost", "Targets that the model knows", "Recall@20 of new items", "Lists with a new item"
    ]  # fmt: skip
    for figure in figures.all():
        box = figure.bounding_box()
        assert min(box["width"], box["height"]) > 150
    ink = opened.evaluate("getComputedStyle(document.body).color")
    fills = opened.locator("figure > svg text").evaluate_all("all => all.map(text => getComputedStyle(text).fill)")
    assert len(fills) > 40
    assert set(fills) == {ink}


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_policies_have_their_colours_in_lines_bars_and_key(scheme: str, opened: Any) -> None:
    opened.emulate_media(color_scheme=scheme)
    colours = [
        opened.evaluate(f"getComputedStyle(document.querySelectorAll('.key .swatch')[{place}].firstChild).stroke")
        for place in range(3)
    ]
    assert len(set(colours)) == 3
    for place, figure in enumerate(opened.locator("figure > svg").all()):
        drawn = figure.evaluate(
            "svg => [...svg.querySelectorAll('path, use')].flatMap("
            "one => [getComputedStyle(one).stroke, getComputedStyle(one).fill])"
        )
        assert set(colours[: 2 if place == 2 else 3]) <= set(drawn)
    paper = opened.evaluate(f"({LIGHTNESS})(getComputedStyle(document.body).backgroundColor)")
    for colour in colours:
        own = opened.evaluate(LIGHTNESS, colour)
        assert (max(own, paper) + 0.05) / (min(own, paper) + 0.05) >= STAND_OUT
    soft = opened.evaluate(f"({LIGHTNESS})(getComputedStyle(document.querySelector('figcaption')).color)")
    assert (max(soft, paper) + 0.05) / (min(soft, paper) + 0.05) >= READ


@pytest.mark.parametrize("width", [360, 1280])
def test_page_never_scrolls_sideways(width: int, opened: Any) -> None:
    opened.set_viewport_size({"width": width, "height": 800})
    scroll_width, inner_width = opened.evaluate("() => [document.documentElement.scrollWidth, innerWidth]")
    assert scroll_width <= inner_width == width


def test_wide_table_scrolls_in_its_own_box_on_a_phone_and_fits_a_desktop(opened: Any) -> None:
    box = opened.locator("#windows")
    assert box.evaluate("box => box.scrollWidth - box.clientWidth") <= 0
    opened.set_viewport_size({"width": 360, "height": 800})
    assert box.evaluate("box => box.scrollWidth - box.clientWidth") > 100
    shown = box.evaluate("box => [getComputedStyle(box).borderRightWidth, getComputedStyle(box).backgroundAttachment]")
    assert shown == ["1px", "local, local, scroll, scroll"]  # shadows stay at the edges, covers scroll along


def test_table_has_a_row_for_each_window_and_policy_and_the_means(opened: Any) -> None:
    rows = opened.locator("#windows tbody tr").evaluate_all(
        "rows => rows.map(row => [...row.cells].map(cell => cell.textContent.trim()))"
    )
    assert len(rows) == 12
    assert rows[0] == ["1", "train anew", "0.5800", "0.2900", "0.2900", "0.2900", "0.4000", "50 s"]
    assert rows[4] == ["", "update", "0.4600", "0.2300", "0.2300", "\u2013", "0.4000", "10 s"]
    assert rows[9] == ["Mean", "train anew", "0.5600", "0.2800", "0.2800", "0.2800", "0.4000", "1.7 min"]


@pytest.mark.parametrize(("n_windows", "expected"), [(1, [1]), (3, [1, 2, 3]), (25, [*range(1, 26, 3)])])
def test_windows_are_whole_numbers_on_the_axes(n_windows: int, expected: list[int]) -> None:
    from matplotlib.figure import Figure

    axes = Figure().subplots()
    _whole_windows(axes, range(1, n_windows + 1))
    assert axes.get_xticks().tolist() == expected


def test_same_results_same_page_and_text_is_no_markup() -> None:
    assert page_of(made_up()) == page_of(made_up())
    page = page_of(made_up(title="Backtest on <script>alert(1)</script>.tsv"))
    assert "<script" not in page
    assert "&lt;script&gt;" in page


@pytest.mark.parametrize("change", [{"format": "gru4rec-comparison"}, {"format_version": 2}])
def test_results_of_another_format_are_refused(change: dict[str, Any]) -> None:
    with pytest.raises(DataError, match="cannot show results of format"):
        page_of({**made_up(), **change})
