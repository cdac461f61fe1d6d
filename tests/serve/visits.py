"""A made-up shop whose pages are visited, and what a visit in a browser says, shows and asks for."""

from __future__ import annotations

import re
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from serve.running import Running

from gru4rec.bundle import Bundle, save_bundle
from gru4rec.config import hyper_parameters
from gru4rec.data.vocabulary import Vocabulary
from gru4rec.model.network import GRU4RecModel

N_ITEMS = 40
BIG = 2**53 + 1
"""A double cannot hold it."""
IDS = [*range(100, 100 + N_ITEMS - 1), BIG]
MARKUP = "<img src=x onerror=alert(1)><b>Oak</b> table"
KINDS = ["Kitchen", "Garden", "Toys"]
FAR = "https://pictures.example"

LIST = "rows => rows.filter(row => row.dataset.id).map(row => row.dataset.id)"


def _save_model(path: Path, seed: int) -> None:
    """Write a model with random weights: its lists differ from click to click."""
    rng = np.random.default_rng(seed)
    settings = hyper_parameters({"layers": [8]})
    shapes = {name: tuple(weight.shape) for name, weight in GRU4RecModel(N_ITEMS, settings).state_dict().items()}
    weights = {name: rng.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}
    save_bundle(Bundle(settings, weights, Vocabulary(np.array(IDS)), np.arange(N_ITEMS, 0, -1)), path)


def png(colour: tuple[int, int, int]) -> bytes:
    """Return a picture of one pixel."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", 1, 1, 8, 2, 0, 0, 0)
    pixels = zlib.compress(b"\0" + bytes(colour))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


def title_of(number: int) -> str:
    return MARKUP if number == 0 else f"{['Oak', 'Blue', 'Linen'][number % 3]} thing {number}"


def write_shop(folder: Path) -> None:
    """Write two models and a catalogue, which leaves out item 5; two of its items have pictures, one from elsewhere."""
    _save_model(folder / "one.gru4rec", 1)
    _save_model(folder / "other.gru4rec", 2)
    (folder / "red.png").write_bytes(png((200, 30, 30)))
    pictures = {1: "red.png", 2: f"{FAR}/blue.png"}
    lines = [
        f"{item_id},{title_of(number)},{pictures.get(number, '')},{KINDS[number % 3]}"
        for number, item_id in enumerate(IDS)
        if number != 5
    ]
    (folder / "shop.csv").write_text("\n".join(["ItemId,title,picture,kind", *lines]) + "\n")


class Visit:
    """A page of a service, with what it said and asked for.

    Attributes:
        page: The browser's.
        said: Console messages, errors and dialogs.
        asked: Method and path of each request to the service.
    """

    def __init__(self, browser: Any, service: Running, path: str = "/", **context: Any) -> None:
        self.service, self.address = service, f"http://127.0.0.1:{service.port}"
        self.context = browser.new_context(**{"viewport": {"width": 1280, "height": 800}} | context)
        self.context.set_default_timeout(15_000)
        self.context.route(f"{FAR}/*", lambda route: route.fulfill(body=png((30, 30, 200)), content_type="image/png"))
        self.page = self.context.new_page()
        self.said: list[str] = []
        self.urls: list[str] = []
        self.page.on("console", lambda message: self.said.append(f"{message.type}: {message.text}"))
        self.page.on("pageerror", lambda error: self.said.append(str(error)))
        self.page.on("dialog", lambda dialog: self.said.append(f"dialog: {dialog.message}"))
        self.page.on("request", lambda request: self.urls.append(f"{request.method} {request.url}"))
        self.page.goto(self.address + path)

    @property
    def asked(self) -> list[str]:
        return [url.replace(self.address, "") for url in self.urls]

    def at(self, selector: str, **having: Any) -> Any:
        return self.page.locator(selector, **having)

    def found(self, *items: int) -> None:
        """Wait until the search shows these items."""
        self.page.wait_for_function(
            "ids => [...document.querySelectorAll('#found > li')].map(row => row.dataset.id).join() === ids",
            arg=",".join(map(str, items)),
        )

    def settled(self, n_clicks: int) -> None:
        """Wait until the list after so many clicks is shown."""
        words = "No click yet" if n_clicks == 0 else "1 click" if n_clicks == 1 else f"{n_clicks} clicks"
        self.at("#status", has_text=re.compile(f"^{words}:")).wait_for()

    def listed(self, name: str = "main-list") -> list[str]:
        return list(self.at(f"#{name} > li").evaluate_all(LIST))

    def clicked(self) -> list[int]:
        """Return the ids of the session, by the titles of its chips."""
        by_title = {title_of(number): item_id for number, item_id in enumerate(IDS)} | {"Item 105": 105}
        return [by_title[text] for text in self.at("#strip .chip .title").all_text_contents()]

    def check(self, **options: Any) -> None:
        """Compare what is shown with what the service answers to the whole session."""
        for name in ("main", "compare"):
            if self.at(f"#{name}-list").is_visible():
                answer = self.service.recommend(self.clicked(), model=name, **options)
                assert self.listed(f"{name}-list") == [str(item["id"]) for item in answer["items"]]
