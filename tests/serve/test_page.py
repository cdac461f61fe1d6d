"""The playground and the description of the interface, in a real browser that asks a real service."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from compare.test_browser import CHROMIUM, CONTRASTS, FLAGS, OVERFLOWS, READ
from serve.running import Running
from serve.visits import BIG, FAR, IDS, MARKUP, N_ITEMS, Visit, write_shop

sync_api = pytest.importorskip("playwright.sync_api", reason="no playwright: pip install playwright")

pytestmark = pytest.mark.skipif(
    not Path(CHROMIUM).exists(), reason=f"no {CHROMIUM}: apt-get install chromium, or set CHROMIUM to its path"
)

KEY = "the-api-key-0000001"
MOVES = "moves => moves.map(move => move.querySelector('.unseen')?.textContent ?? move.textContent)"
TARGETS = """() => [...document.querySelectorAll('button, select, input:not([type=checkbox]), nav a, .check, summary')]
  .map(element => [element.outerHTML.slice(0, 80), element.getBoundingClientRect()])
  .filter(([, box]) => box.width && Math.min(box.width, box.height) < 40).map(([html]) => html)"""
FOCUSED = """() => {
  const [element, style] = [document.activeElement, getComputedStyle(document.activeElement)];
  const name = element.id || `${element.className} ${element.closest('ol')?.id ?? ''}`.trim();
  return [name, style.outlineStyle, style.outlineWidth];
}"""


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("shop")
    write_shop(folder)
    return folder


@pytest.fixture(scope="module")
def services(shop: Path) -> Iterator[dict[str, Running]]:
    """Three services, started side by side.

    ``open`` has all there is; ``locked`` wants a key and keeps its sessions in a Redis that is not there; ``bare`` has
    neither sessions, a catalogue nor a second model.
    """
    (shop / "keys").write_text(f"{KEY}\n")
    one, other, catalogue = shop / "one.gru4rec", shop / "other.gru4rec", ("--catalogue", shop / "shop.csv")
    words: dict[str, Sequence[Any]] = {
        "open": (one, "--compare", other, *catalogue),
        "locked": (one, *catalogue, "--keys", shop / "keys", "--redis", "redis://127.0.0.1:1/0"),
        "bare": (one, "--stateless"),
    }

    def start(name: str) -> Running:
        return Running(*words[name], "--drain", "0", log=shop / f"{name}.log")

    with ThreadPoolExecutor() as threads:
        running = dict(zip(words, threads.map(start, words), strict=True))
        yield running
        list(threads.map(Running.stop, running.values()))


@pytest.fixture
def service(services: dict[str, Running]) -> Running:
    return services["open"]


@pytest.fixture
def locked(services: dict[str, Running]) -> Running:
    return services["locked"]


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with sync_api.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture
def visit(browser: Any, service: Running) -> Iterator[Visit]:
    """The playground. Afterwards: nothing was said on the console, and nobody else was asked but for pictures."""
    visit = Visit(browser, service)
    visit.settled(0)
    yield visit
    assert visit.said == []
    assert {url.split(" ")[1].split("/")[2] for url in visit.urls} <= {f"127.0.0.1:{service.port}", FAR[8:]}
    visit.context.close()


def test_after_each_click_the_list_is_what_the_service_answers(visit: Visit) -> None:
    visit.check()
    visit.at("#query").fill("oak")
    visit.found(*IDS[::3])  # all with Oak in their title
    visit.at("#found .click").nth(0).click()
    visit.settled(1)
    lists = [visit.listed()]
    for n, place in enumerate([3, 0, 7, 2], start=2):
        visit.check()
        visit.at("#main-list .click").nth(place).click()
        visit.settled(n)
        assert str(visit.clicked()[-1]) == lists[-1][place]
        lists.append(visit.listed())
    visit.check()
    assert len({tuple(each) for each in lists}) == 5
    events = [line for line in visit.asked if line.endswith("/events")]
    assert len(events) == 5
    assert len(set(events)) == 1, "one session all along"
    kept = visit.service.ask("GET", events[0].split(" ")[1].removesuffix("/events"))[1]
    assert kept["session"] == visit.clicked()


def test_moves_are_those_against_the_list_before(visit: Visit) -> None:
    before = visit.listed()
    visit.at("#main-list .click").nth(4).click()
    visit.settled(1)
    after = visit.listed()
    expected = []
    for rank, item in enumerate(after):
        moved = before.index(item) - rank if item in before else None
        expected.append(
            "new" if moved is None else "same place" if moved == 0 else f"{'up' if moved > 0 else 'down'} {abs(moved)}"
        )
    assert visit.at("#main-list .move").evaluate_all(MOVES) == expected
    assert {"new"} < set(expected)


def test_a_click_that_is_taken_back_leaves_the_session_without_it(visit: Visit) -> None:
    for n in range(1, 5):
        visit.at("#main-list .click").nth(n).click()
        visit.settled(n)
    session = visit.clicked()
    visit.at("#undo").click()
    visit.settled(3)
    assert visit.clicked() == session[:3]
    visit.check()
    visit.at("#strip .remove").nth(1).click()
    visit.settled(2)
    assert visit.clicked() == [session[0], session[2]]
    visit.check()
    visit.at("#main-list .click").nth(0).click()
    visit.settled(3)
    visit.check()
    last = [line for line in visit.asked if line.endswith("/events")][-3:]
    assert len(set(last)) == 1, "another session, told all its clicks"
    assert visit.service.ask("GET", last[0].split(" ")[1].removesuffix("/events"))[1]["session"] == visit.clicked()
    visit.at("#anew").click()
    visit.settled(0)
    visit.check()


def test_a_session_the_service_has_forgotten_is_told_again(visit: Visit) -> None:
    for n in (1, 2):
        visit.at("#main-list .click").nth(n).click()
        visit.settled(n)
    session = next(line for line in visit.asked if line.endswith("/events")).split(" ")[1].removesuffix("/events")
    assert visit.service.ask("DELETE", session)[0] == 204
    visit.at("#main-list .click").nth(0).click()
    visit.settled(3)
    visit.check()


def test_ids_of_64_bits_keep_their_last_digit(visit: Visit) -> None:
    visit.at("#query").fill(str(BIG))
    visit.found(BIG)
    visit.at("#found .click").click()
    visit.settled(1)
    assert visit.at(".chip.unknown").count() == 0
    assert visit.clicked() == [BIG]
    visit.check()


def test_an_id_nobody_knows_can_be_clicked_and_is_marked(visit: Visit) -> None:
    visit.at("#query").fill("987654")
    visit.at("#found").get_by_text("click it all the same").click()
    visit.settled(1)
    assert "unknown: skipped" in visit.at(".chip.unknown").text_content()
    assert "knows none" in visit.at("#note").text_content()
    popular = visit.service.recommend([])["items"]
    assert visit.listed() == [str(item["id"]) for item in popular]


def test_markup_in_titles_is_text(visit: Visit) -> None:
    title = visit.at("#found .title").first
    assert title.text_content() == MARKUP
    assert title.locator("*").count() == 0
    visit.at("#found .click").first.click()
    visit.settled(1)
    assert visit.at("#strip .title").text_content() == MARKUP
    visit.at("#strip .what").click()
    visit.at("#similar[open]").wait_for()
    assert visit.at("#similar-head").text_content() == f"Like {MARKUP}"


def test_pictures_come_from_the_service_or_from_where_the_catalogue_says(visit: Visit) -> None:
    images = visit.at("#found img")
    images.nth(1).evaluate("image => image.decode()")
    sources = images.evaluate_all("images => images.map(image => [image.src, image.naturalWidth])")
    assert sources == [[f"{visit.address}/v1/items/{IDS[1]}/picture", 1], [f"{FAR}/blue.png", 1]]
    assert visit.at("#found .picture.tile").first.text_content() == "im"  # letters of <img


def test_two_models_are_compared(visit: Visit) -> None:
    visit.at("#k").fill("10")
    visit.at("#k").press("Tab")
    visit.at("#main-list .click").nth(2).click()
    visit.settled(1)
    visit.at("#status", has_text="1 click: 10 items").wait_for()
    visit.check(k=10)
    one, other = visit.listed("main-list"), visit.listed("compare-list")
    shared = [item for item in one if item in other]
    text = visit.at("#overlap").text_content()
    assert f"{len(shared) * 10} % overlap" in text
    assert f"{len(shared)} of 10 items in both lists" in text
    assert f"{sum(a == b for a, b in zip(one, other, strict=True))} of them at the same rank" in text
    marks = [f"#{other.index(item) + 1} there" if item in other else "only here" for item in one]
    assert visit.at("#main-list .mark").all_text_contents() == marks
    assert 0 < len(shared) < 10
    visit.at("#compare").uncheck()
    visit.at("#compare-list").wait_for(state="hidden")
    assert visit.at("#main-list .mark").count() == 0


def test_similar_items_are_shown_and_can_be_clicked(visit: Visit) -> None:
    item = visit.listed()[3]
    visit.at("#main-list .similar").nth(3).click()
    visit.at("#similar[open]").wait_for()
    answer = visit.service.ask("GET", f"/v1/items/{item}/similar?k=20")[1]
    assert visit.listed("similar-list") == [str(each["id"]) for each in answer["items"]]
    other = visit.listed("compare-list")[0]
    visit.page.keyboard.press("Escape")
    visit.at("#compare-list .similar").first.click()
    visit.at("#similar-what", has_text="By model compare").wait_for()
    of_other = visit.service.ask("GET", f"/v1/items/{other}/similar?k=20&model=compare")[1]
    assert visit.listed("similar-list") == [str(each["id"]) for each in of_other["items"]]
    visit.page.keyboard.press("Escape")
    visit.at("#main-list .similar").nth(3).click()
    visit.at("#similar-what", has_text="By model main").wait_for()
    visit.at("#similar-list .click").nth(1).click()
    visit.settled(1)
    assert visit.at("#similar").is_hidden()
    assert visit.clicked() == [answer["items"][1]["id"]]
    visit.check()


def test_options_change_the_list(visit: Visit) -> None:
    visit.at("#main-list .click").nth(0).click()
    visit.settled(1)
    visit.at("#column").select_option("kind")
    visit.at("#value").fill("Garden")
    garden = [str(item_id) for number, item_id in enumerate(IDS) if number % 3 == 1]
    visit.page.wait_for_function(
        "ids => [...document.querySelectorAll('#main-list > li')].every(row => ids.includes(row.dataset.id))",
        arg=garden,
    )
    visit.check(where={"kind": ["Garden"]})
    visit.at("#unseen-only").check()
    visit.at("#main-list .click").nth(0).click()
    visit.settled(2)
    visit.check(where={"kind": ["Garden"]}, exclude_seen=True)
    assert str(visit.clicked()[-1]) not in visit.listed()
    visit.at("#value").fill("nonsense")
    visit.page.get_by_text("No item is left by these options").first.wait_for()


def test_a_session_can_be_sent_whole(visit: Visit) -> None:
    visit.at("#keep").uncheck()
    for n in (1, 2):
        visit.at("#main-list .click").nth(n).click()
        visit.settled(n)
        visit.check()
    assert not any("/v1/sessions" in line for line in visit.asked)


def test_an_answer_that_comes_too_late_is_not_shown(visit: Visit) -> None:
    visit.at("#keep").uncheck()
    visit.at("#compare").uncheck()
    visit.at("#compare-list").wait_for(state="hidden")
    held: list[Any] = []

    def hold_first(route: Any) -> None:
        if held:
            route.continue_()
        else:
            held.append(route)

    visit.page.route("**/v1/recommend", hold_first)
    with visit.page.expect_request("**/v1/recommend"):
        visit.at("#found .click").nth(3).click()
    visit.at("#found .click").nth(6).click()
    visit.settled(2)
    newest = visit.listed()
    with visit.page.expect_response("**/v1/recommend"):
        held[0].continue_()
    visit.page.wait_for_timeout(100)
    assert visit.listed() == newest
    visit.check()


def test_latency_is_shown(visit: Visit) -> None:
    for n in (1, 2):
        visit.at("#main-list .click").nth(n).click()
        visit.settled(n)
    assert float(visit.at("#last").text_content().removesuffix(" ms")) > 0
    assert visit.at("#median").text_content().endswith(" of 3")
    assert len(visit.at("#spark polyline").get_attribute("points").split()) == 3
    assert "3 requests" in visit.at("#spark").get_attribute("aria-label")


def test_models_are_described(visit: Visit) -> None:
    main = visit.service.ask("GET", "/v1/model")[1]["models"][0]
    card = visit.at("#models article").first.text_content()
    for value in ("one.gru4rec", main["version"], "GRU4Rec", str(N_ITEMS), main["search"]):
        assert value in card
    visit.at("#models summary").first.click()
    assert visit.at("#models details").first.locator("dt", has_text="layers").is_visible()
    for page in ("docs", "metrics"):
        assert visit.service.ask("GET", f"/{visit.at(f'header a[href={page}]').get_attribute('href')}")[0] == 200


def test_a_session_by_keys_alone(visit: Visit) -> None:
    keys = visit.page.keyboard
    keys.press("/")
    keys.type("linen")
    keys.press("Enter")
    visit.settled(1)
    assert visit.clicked() == [IDS[2]]  # the Linen that was clicked most
    visit.found(*(IDS[number] for number in range(2, N_ITEMS, 3) if number != 5))
    keys.press("ArrowDown")
    keys.press("ArrowDown")
    keys.press("Enter")
    visit.settled(2)
    assert visit.clicked() == [IDS[2], IDS[8]]
    focused: list[str] = []
    while not focused or focused[-1] != "click main-list":
        keys.press("Tab")
        focused.append(visit.page.evaluate(FOCUSED)[0])
        assert len(focused) < 80, focused
    third = visit.listed()[2]
    keys.press("ArrowDown")
    keys.press("ArrowDown")
    keys.press("Enter")
    visit.settled(3)
    assert str(visit.clicked()[-1]) == third
    assert visit.page.evaluate("document.activeElement.closest('li').dataset.id") == visit.listed()[2], "focus stays"
    keys.press("ArrowRight")
    keys.press("Enter")
    visit.at("#similar[open]").wait_for()
    keys.press("Escape")
    assert visit.at("#similar").is_hidden()
    visit.at("#strip .what").last.focus()
    keys.press("Backspace")
    visit.settled(2)
    assert visit.page.evaluate("document.activeElement.closest('ol').id") == "strip"
    keys.press("?")
    assert visit.at("#help").is_visible()
    keys.press("Escape")
    assert visit.at("#help").is_hidden()


def test_tab_reaches_everything_and_shows_where_it_is(visit: Visit) -> None:
    visit.at("#found .click").first.click()
    visit.settled(1)
    visit.page.evaluate("document.activeElement.blur()")
    wanted = {"undo", "anew", "query", "k", "unseen-only", "compare", "keep", "column", "help-open", "what strip"}
    wanted |= {f"{button} {name}" for button in ("click", "similar") for name in ("found", "main-list", "compare-list")}
    seen = set()
    for _ in range(250):
        visit.page.keyboard.press("Tab")
        name, style, width = visit.page.evaluate(FOCUSED)
        if name:  # none where the focus leaves the page, to come back at its beginning
            assert (style, width) == ("solid", "2px"), name
        seen.add(name)
        if wanted <= seen:
            break
    assert wanted <= seen


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1280])
def test_page_fits_the_screen_and_can_be_read(scheme: str, width: int, browser: Any, service: Running) -> None:
    visit = Visit(browser, service, viewport={"width": width, "height": 844}, color_scheme=scheme)
    visit.settled(0)
    visit.at("#main-list .click").nth(3).click()
    visit.settled(1)
    papers = {"light": "rgb(246, 247, 249)", "dark": "rgb(20, 22, 27)"}
    assert visit.page.evaluate("getComputedStyle(document.body).backgroundColor") == papers[scheme]
    for summary in visit.at("summary").all():
        summary.click()
    scroll_width, inner_width = visit.page.evaluate(OVERFLOWS)
    assert scroll_width <= inner_width == width
    assert visit.page.evaluate(TARGETS) == []
    selectors = ["h1", "h2", "h3", ".soft", ".title", "small", ".rank", ".move", ".number", ".mark", ".tile", "label"]
    measured = visit.page.evaluate(CONTRASTS, [*selectors, "button:not(:disabled)", "a", "dt", "dd", "summary"])
    assert [(selector, contrast) for selector, contrast in measured if contrast < READ] == []
    columns = [visit.at(f"#{name}-column").bounding_box()["x"] for name in ("main", "compare")]
    assert (columns[0] == columns[1]) == (width == 390)
    visit.at("#main-list .similar").first.click()
    visit.at("#similar[open]").wait_for()
    box = visit.at("#similar").bounding_box()
    assert box["x"] >= 0
    assert box["x"] + box["width"] <= width
    visit.context.close()


REFUSALS = [
    (429, {"Retry-After": "3"}, "too much to do just now. Try again in 3 s."),
    (503, {"Retry-After": "1"}, "cannot answer at the moment: made up. Try again in 1 s."),
    (422, {}, "refused the request: made up."),
]


@pytest.mark.parametrize(("status", "headers", "words"), REFUSALS)
def test_refusals_are_said_in_words(
    status: int, headers: dict[str, str], words: str, browser: Any, service: Any
) -> None:
    visit = Visit(browser, service)
    visit.settled(0)
    body = json.dumps({"error": {"code": "made_up", "message": "made up"}})
    visit.page.route("**/events", lambda route: route.fulfill(status=status, headers=headers, body=body))
    before = visit.listed()
    visit.at("#main-list .click").first.click()
    visit.at("#status.bad").wait_for()
    assert words in visit.at("#status").text_content()
    assert visit.at("#status").get_attribute("aria-live") == "polite"
    assert visit.listed() == before
    visit.page.unroute("**/events")
    if status != 422:
        visit.at("#again").click()
        visit.settled(1)
        visit.check()
        assert visit.at("#again").is_hidden()
    assert all("Failed to load resource" in line for line in visit.said), "the browser's own words, not the page's"
    visit.context.close()


def test_a_key_is_asked_for_and_sent(browser: Any, locked: Running) -> None:
    visit = Visit(browser, locked)
    visit.at("#key").wait_for()
    assert visit.at("#lists").is_hidden()
    assert "wants an API key" in visit.at("#status").text_content()
    assert visit.said == [], "nobody was refused yet"
    visit.at("#key-text").fill("another-key-00000000")
    visit.page.keyboard.press("Enter")
    visit.at("#status", has_text="That key does not fit. Give another one.").wait_for()
    visit.at("#key-text").fill(KEY)
    visit.page.keyboard.press("Enter")
    visit.settled(0)
    assert visit.at("#key").is_hidden()
    bearer = {"Authorization": f"Bearer {KEY}"}
    answer = locked.ask("POST", "/v1/recommend", {"session": []}, headers=bearer)[1]
    assert visit.listed() == [str(item["id"]) for item in answer["items"]]
    image = visit.at("#found img").first
    assert image.get_attribute("src").startswith("blob:")
    image.evaluate("image => image.decode()")
    visit.page.reload()
    visit.settled(0)
    assert visit.page.evaluate("localStorage.length") == 0
    assert KEY not in "".join(visit.urls)
    visit.context.close()


def test_a_lost_store_is_said_and_the_session_can_be_sent_whole(browser: Any, locked: Running) -> None:
    visit = Visit(browser, locked)
    visit.at("#key-text").fill(KEY)
    visit.page.keyboard.press("Enter")
    visit.settled(0)
    for n in (1, 2):
        visit.at("#main-list .click").nth(n).click()
        visit.settled(n)
    assert "newest click alone" in visit.at("#note").text_content()
    bearer = {"Authorization": f"Bearer {KEY}"}
    alone = locked.ask("POST", "/v1/recommend", {"session": visit.clicked()[-1:]}, headers=bearer)[1]
    assert visit.listed() == [str(item["id"]) for item in alone["items"]]
    visit.at("#keep").uncheck()
    visit.at("#note").wait_for(state="hidden")
    whole = locked.ask("POST", "/v1/recommend", {"session": visit.clicked()}, headers=bearer)[1]
    assert visit.listed() == [str(item["id"]) for item in whole["items"]]
    assert visit.said == []
    visit.context.close()


def test_docs_describe_every_path_and_send_requests(browser: Any, service: Running) -> None:
    visit = Visit(browser, service, "/docs")
    visit.at("section").first.wait_for()
    document = service.ask("GET", "/openapi.json")[1]
    described = [f"{method.upper()}{path}" for path, methods in document["paths"].items() for method in methods]
    assert visit.at("section h2").all_text_contents() == described
    recommend = visit.at("section").first
    cells = recommend.locator("tr", has=visit.page.get_by_text("k", exact=True)).locator("td").all_text_contents()
    assert cells[:4] == ["k", "integer", "1 to 100", "20"]
    assert recommend.get_by_text("Needs either session or sessions.").is_visible()
    recommend.get_by_text("Try it").click()
    recommend.locator("textarea").fill(json.dumps({"session": [BIG], "k": 3}))
    recommend.get_by_role("button", name="Send").click()
    recommend.locator(".result pre").wait_for()
    assert recommend.locator(".result p").text_content().startswith("200 in ")
    expected = service.recommend([BIG], k=3)
    assert json.loads(recommend.locator(".result pre").text_content()) == expected
    curl = recommend.locator(".curl pre").text_content()
    if shutil.which("curl"):
        done = subprocess.run(["bash", "-c", f"{curl} -s"], capture_output=True, text=True, check=True)
        assert json.loads(done.stdout) == expected
    assert visit.said == []
    assert all(url.startswith(("GET " + visit.address, "POST " + visit.address)) for url in visit.urls)
    visit.context.close()


def test_docs_copy_the_curl_line(browser: Any, service: Running) -> None:
    visit = Visit(browser, service, "/docs", permissions=["clipboard-read", "clipboard-write"])
    similar = visit.at("#get-v1-items-item-id-similar")
    similar.get_by_role("button", name="Copy").click()
    similar.get_by_text("Copied").wait_for()
    copied = visit.page.evaluate("navigator.clipboard.readText()")
    assert copied == f"curl '{visit.address}/v1/items/{IDS[0]}/similar?k=5'"
    visit.context.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1280])
def test_docs_fit_the_screen_and_can_be_read(scheme: str, width: int, browser: Any, service: Running) -> None:
    visit = Visit(browser, service, "/docs", viewport={"width": width, "height": 844}, color_scheme=scheme)
    visit.at("section").first.wait_for()
    visit.page.evaluate("for (const each of document.querySelectorAll('details')) each.open = true")
    scroll_width, inner_width = visit.page.evaluate(OVERFLOWS)
    assert scroll_width <= inner_width == width
    assert visit.page.evaluate(TARGETS) == []
    selectors = [
        "h1",
        "h2",
        "h3",
        "h4",
        "th",
        "td",
        ".verb",
        "p",
        "a",
        "pre",
        "button",
        "label",
        "summary",
        ".answer b",
    ]
    measured = visit.page.evaluate(CONTRASTS, selectors)
    assert [(selector, contrast) for selector, contrast in measured if contrast < READ] == []
    visit.context.close()


def test_pages_forbid_scripts_and_requests_from_elsewhere(browser: Any, service: Running) -> None:
    visit = Visit(browser, service)
    visit.settled(0)
    visit.page.evaluate(
        """() => {
          const script = document.createElement('script');
          script.textContent = 'window.ran = true';
          document.body.append(script);
        }"""
    )
    refused = visit.page.evaluate("fetch('https://elsewhere.example/').then(() => false, () => true)")
    assert refused
    assert visit.page.evaluate("window.ran") is None
    assert len([line for line in visit.said if "Content Security Policy" in line]) >= 2
    visit.context.close()


def test_a_service_with_a_model_alone_offers_no_more_and_its_end_is_said(browser: Any, services: Any) -> None:
    bare = services["bare"]
    visit = Visit(browser, bare)
    visit.settled(0)
    for option in ("keep-option", "compare-option", "filter", "compare-column", "key"):
        assert visit.at(f"#{option}").is_hidden()
    assert visit.at("#found .title").first.text_content() == f"Item {IDS[0]}"
    visit.at("#main-list .click").first.click()
    visit.settled(1)
    bare.stop()
    visit.at("#main-list .click").first.click()
    visit.at("#status.bad").wait_for()
    assert "does not answer" in visit.at("#status").text_content()
    assert visit.at("#again").is_visible()
    visit.context.close()
