"""Small made-up raw logs in the form in which the owners of six public logs ship them, full of edge cases.

``clicks`` makes up what visitors did; a function a recipe writes it down as that log's files.
"""

from __future__ import annotations

import datetime as dt
import gzip
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

N_POPULAR = 25
N_CHAIN = 6
VIEW = "view"
OTHER_KINDS = ("cart", "buy", "remove")


@dataclass(frozen=True)
class Event:
    """Somebody did something to an item, `time` ticks after 1970."""

    group: int
    time: int
    item: int
    kind: str = VIEW


class Clicks:
    """The events of a made-up log; items 0 to N_POPULAR - 1 have many events."""

    def __init__(self, seed: int, *, end: int, window: int, second: int, kinds: bool, users: bool) -> None:
        self.rng = np.random.default_rng(seed)
        self.end, self.window, self.second = end, window, second
        self.hour = 3_600 * second
        self.kinds, self.users = kinds, users
        self.events: list[Event] = []
        self._item = N_POPULAR
        self._group = self.last_unplanted = 100

    # --- pieces ---

    def new_item(self) -> int:
        self._item += 1
        return self._item

    def new_group(self) -> int:
        """Return an id that nobody else has; ids are of several widths, and not without holes."""
        self._group += int(self.rng.integers(1, 40))
        return self._group

    def popular(self, n: int) -> list[int]:
        """Return different items of many events."""
        return [int(item) for item in self.rng.permutation(N_POPULAR)[:n]]

    def visit(self, events: Iterable[tuple[int, int] | tuple[int, int, str]], group: int | None = None) -> None:
        """Add a visit of (time, item) or (time, item, kind)."""
        group = self.new_group() if group is None else group
        self.events += [Event(group, *event) for event in events]

    def moment(self) -> int:
        """Return some time well inside training, hours away from both cuts."""
        return self.end - int(self.rng.integers(3 * self.window, 6 * self.window))

    # --- what happens ---

    def background(self, n_visits: int, spread: int) -> None:
        """Visits at any time, of popular items and of items that get 1 to 8 events."""
        pool = [item for times in range(1, 9) for item in [self.new_item() for _ in range(6)] for _ in range(times)]
        rare = iter(self.rng.permutation(pool).tolist())
        groups = [self.new_group() for _ in range(n_visits // 3)]
        for _ in range(n_visits):
            back = self.rng.integers(0, 4 * self.window if self.rng.random() < 0.6 else spread)
            time = self.end - 4 * self.hour - int(back)
            group = int(self.rng.choice(groups)) if self.users else self.new_group()
            item = 0
            for _ in range(int(self.rng.geometric(0.35))):
                if self.rng.random() > 0.2:
                    item = next(rare, 1) if self.rng.random() < 0.2 else int(self.rng.integers(N_POPULAR))
                kind = str(self.rng.choice(OTHER_KINDS)) if self.kinds and self.rng.random() < 0.2 else VIEW
                self.events.append(Event(group, time, item, kind))
                time += self.pause()

    def pause(self) -> int:
        """Return the time to the next event: none, a little, exactly an hour, a tick more, or some hours."""
        some = int(self.rng.integers(1, 50 * 60 * self.second))
        pauses = [0, 1, some, some, self.hour, self.hour + 1, 3 * self.hour]
        return int(self.rng.choice(pauses, p=[0.2, 0.1, 0.3, 0.2, 0.08, 0.08, 0.04]))

    def around(self, cut: int) -> None:
        """Sessions that begin, end or lie across a cut, at it and one tick beside it."""
        a, b, c, d = self.popular(4)
        self.visit([(cut, a), (cut + 60, b)])
        self.visit([(cut - 1, a), (cut, b), (cut + 1, c)])
        self.visit([(cut - 300, a), (cut - 1, b), (cut, c), (cut + 5, d)])
        self.visit([(cut - 300, a), (cut, b)])
        self.visit([(cut - 300, c), (cut - 1, d)])
        self.visit([(cut - 1, d), (cut - 1, a), (cut + self.hour - 1, b)])
        self.visit([(cut, c), (cut, b), (cut, a)])

    def chain(self) -> None:
        """Items that are rare only after a session of the item before has gone: one round of filtering each."""
        chain = [self.new_item() for _ in range(N_CHAIN)]
        time = self.moment()
        self.visit([(time, chain[0]), (time + 1, self.new_item())])
        for item, following in zip(chain, [*chain[1:], None], strict=True):
            if following is not None:
                time = self.moment()
                self.visit([(time, item), (time + 2, following)])
            for _ in range(4 if following is None else 3):  # 5 events with those of the pairs
                time = self.moment()
                a, b = self.popular(2)
                self.visit([(time, a), (time + 1, item), (time + 2, b)])

    def cold(self, begin: int) -> None:
        """Items that have enough events, all of them after `begin`."""
        one, two = self.new_item(), self.new_item()
        for place in range(6):
            time = begin + int(self.rng.integers(self.window // 3))
            a, b = self.popular(2)
            self.visit([(time, one), (time + 3, a)])
            self.visit([(time, a), (time, two), (time + 9, b)])
            if place < 2:
                self.visit([(time, one), (time + 1, two)])

    def edges_of_sessions(self) -> None:
        """Pauses of exactly an hour and a tick more, repeats across them, events of equal time in another order."""
        a, b, c = sorted(self.popular(3))
        for _ in range(4):
            time = self.moment()
            self.visit([(time, a), (time + self.hour, b)])
            self.visit([(time, a), (time + 5, b), (time + 5 + self.hour + 1, b), (time + 9 + self.hour + 1, c)])
            self.visit([(time, c), (time, a), (time, b), (time + 1, b), (time + 1, a)])
        for group, items in ((7, (a, b)), (8, (b, c)), (9, (c, a)), (10, (a, c))):  # neighbours share an item
            self.visit([(self.moment() + place, item) for place, item in enumerate(items)], group)

    def bridges(self) -> None:
        """Pauses of more than an hour between views, with something else on the way, or nothing."""
        a, b = self.popular(2)
        step = self.hour - 600
        for kind in OTHER_KINDS:
            time = self.moment()
            self.visit([(time, a), (time + step, a, kind), (time + 2 * step, b)])
            self.visit([(time, a), (time + 2 * step, b)])
            self.visit([(time, a), (time + 9, b, kind), (time + 20, a), (time + 30, b)])  # a repeat once views are left
            self.visit([(time, b, kind), (time + 40, a, kind)])


def clicks(
    seed: int, *, end: int, window: int, second: int, spread: int, kinds: bool, users: bool, has_end: bool
) -> Clicks:
    """Make up a log of some thousand events whose last one is at `end` if `has_end`, else some hours before."""
    made = Clicks(seed, end=end, window=window, second=second, kinds=kinds, users=users)
    made.background(620, spread)
    made.last_unplanted = made.new_group()
    for back in (window, 2 * window):
        made.around(end - back)
        made.cold(end - back + made.hour)
    made.chain()
    made.edges_of_sessions()
    if kinds:
        made.bridges()
    if has_end:
        a, b = made.popular(2)
        made.visit([(end - 10, a), (end, b)])
    return made


def in_file_order(events: list[Event], seed: int) -> list[Event]:
    """Order events by nothing, by group or by time, as the seed says; in no case do equal ones stand in item order."""
    rng = np.random.default_rng([seed, 1])
    events = [events[place] for place in rng.permutation(len(events))]
    if seed % 3 == 1:
        return sorted(events, key=lambda event: (event.group, event.time))
    if seed % 3 == 2:
        return sorted(events, key=lambda event: event.time)
    return events


def numbers(n: int, seed: int, largest: int) -> list[int]:
    """Return different ids of 1 to many digits."""
    rng = np.random.default_rng([seed, 2])
    ids = {*range(3, 60, 4)}
    while len(ids) < n:
        ids.add(int(rng.integers(1, 10 ** int(rng.integers(3, len(str(largest)) + 1)))))
    return [int(number) for number in rng.permutation(sorted(ids))]


def hexes(n: int, seed: int, digits: int) -> list[str]:
    rng = np.random.default_rng([seed, 3])
    return [rng.bytes(digits // 2).hex() for _ in range(n)]


def write(path: Path, header: str | None, rows: Iterable[Iterable[object]], sep: str = ",") -> None:
    lines = [] if header is None else [header]
    path.write_text("".join(f"{line}\n" for line in [*lines, *(sep.join(map(str, row)) for row in rows)]))


def iso(ms: int) -> dt.datetime:
    return dt.datetime(1970, 1, 1) + dt.timedelta(milliseconds=ms)


DAY_S = 86_400
DAY_MS = 1_000 * DAY_S


def write_yoochoose(folder: Path, seed: int) -> None:
    """Clicks and test clicks: session, ISO time with ms, item, category. Every fourth seed has whole seconds only."""
    per_s, ms = (1, 1_000) if seed % 4 == 3 else (1_000, 1)
    made = clicks(
        seed, end=1_412_045_999 * per_s + (430 if ms == 1 else 0), window=DAY_S * per_s, second=per_s,
        spread=20 * DAY_S * per_s, kinds=False, users=False, has_end=True,
    )  # fmt: skip
    items = numbers(1_000, seed, 999_999_999)
    rng = np.random.default_rng([seed, 4])
    files: dict[str, list[tuple[object, ...]]] = {"yoochoose-clicks.dat": [], "yoochoose-test.dat": []}
    for event in in_file_order(made.events, seed):
        time = iso(event.time * ms).isoformat(timespec="milliseconds") + "Z"
        category = rng.choice(["0", "S", "1", "12", "2089072658"])
        # The planted cases are few, and all of them for both recipes: the test file has some of the other sessions.
        is_other = 100 < event.group < made.last_unplanted and event.group % 5 == 0
        name = "yoochoose-test.dat" if is_other else "yoochoose-clicks.dat"
        files[name].append((event.group, time, items[event.item], category))
    for name, rows in files.items():
        write(folder / name, None, rows)


def write_rees46(folder: Path, seed: int) -> None:
    """Two months, a file each."""
    end = 1_575_158_400
    november = 1_572_566_400
    made = clicks(seed, end=end, window=DAY_S, second=1, spread=50 * DAY_S, kinds=True, users=True, has_end=False)
    a, b, c = made.popular(3)
    made.visit([(november - 100, a), (november, b), (november + 100, c)])
    made.visit([(november - 1, a), (november - 1 + 3_600, a), (november + 3_601, c)])
    users, items = numbers(40_000, seed, 599_999_999), numbers(1_000, seed + 1, 99_999_999)
    rng = np.random.default_rng([seed, 4])
    kinds = {VIEW: "view", "cart": "cart", "buy": "purchase", "remove": "remove_from_cart"}
    files: dict[str, list[tuple[object, ...]]] = {"2019-Oct.csv": [], "2019-Nov.csv": []}
    for event in in_file_order(made.events, seed):
        name = "2019-Oct.csv" if event.time < november else "2019-Nov.csv"
        files[name].append(
            (
                f"{iso(event.time * 1_000):%Y-%m-%d %H:%M:%S} UTC",
                kinds[event.kind],
                items[event.item],
                2_053_013_552_259_662_037 + event.item,
                rng.choice(["", "electronics.smartphone", "apparel.shoes"]),
                rng.choice(["", "samsung"]),
                f"{rng.random() * 900:.2f}",
                users[event.group],
                rng.choice(["", "72d76fde-8bb3-4e00-8c23-a032dfed738c"]),
            )
        )
    header = "event_time,event_type,product_id,category_id,category_code,brand,price,user_id,user_session"
    for name, rows in files.items():
        write(folder / name, header, rows)


def write_coveo(folder: Path, seed: int) -> None:
    """Page views without a product, and product events; some have no product hash, and purchases can have several."""
    made = clicks(
        seed, end=1_550_000_000_123, window=DAY_MS, second=1_000, spread=20 * DAY_MS, kinds=True, users=True,
        has_end=True,
    )  # fmt: skip
    rng = np.random.default_rng([seed, 4])
    hashes = [f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}" for text in hexes(40_000, seed, 32)]
    items = hexes(1_000, seed, 64)
    kinds = {VIEW: "detail", "cart": "add", "buy": "purchase", "remove": "remove"}
    rows = []
    for event in in_file_order(made.events, seed):
        session, time = hashes[event.group], event.time
        kind = rng.choice(["pageview", "event"]) if event.kind != VIEW else "pageview"
        product = items[event.item]
        if event.kind == "buy":
            product = f"{product}|{items[0]}"
        if event.kind == "cart" and rng.random() < 0.4:
            product = ""
        rows.append((session, kind, kinds[event.kind], product, time, items[event.item][::-1]))
        if rng.random() < 0.1:
            rows.append((session, "event", "click", product, time, items[event.item][::-1]))
        if rng.random() < 0.1:  # a detail of a product that is not known, in a visit that goes on anyway
            rows.append((session, "pageview", "detail", "", time, items[event.item][::-1]))
        if rng.random() < 0.2:  # a page without a product is no product event: it bridges nothing
            rows.append((session, "pageview", "", "", time + 50 * 60 * 1_000, items[1][::-1]))
    header = "session_id_hash,event_type,product_action,product_skus_hash,server_timestamp_epoch_ms,hashed_url"
    write(folder / "release_10_23_2020.csv", header, rows)


def write_retailrocket(folder: Path, seed: int) -> None:
    """Views, carts and transactions; only these have a transaction id."""
    made = clicks(
        seed, end=1_442_545_200_000, window=7 * DAY_MS, second=1_000, spread=120 * DAY_MS, kinds=True, users=True,
        has_end=False,
    )  # fmt: skip
    visitors, items = numbers(40_000, seed, 1_407_579), numbers(1_000, seed + 1, 466_866)
    kinds = {VIEW: "view", "cart": "addtocart", "buy": "transaction", "remove": "addtocart"}
    rows = [
        (
            event.time,
            visitors[event.group],
            kinds[event.kind],
            items[event.item],
            place if event.kind == "buy" else "",
        )
        for place, event in enumerate(in_file_order(made.events, seed))
    ]
    write(folder / "events.csv", "timestamp,visitorid,event,itemid,transactionid", rows)


def write_diginetica(folder: Path, seed: int) -> None:
    """Times are ms after the session's first day; a session's rows can name several days, in any order."""
    made = clicks(
        seed, end=1_464_800_000_777, window=7 * DAY_MS, second=1_000, spread=100 * DAY_MS, kinds=False, users=False,
        has_end=True,
    )  # fmt: skip
    rng = np.random.default_rng([seed, 4])
    items = numbers(1_000, seed + 1, 199_999)
    first: dict[int, int] = {}
    for event in made.events:
        first[event.group] = min(event.time, first.get(event.group, event.time))
    seen: set[int] = set()
    rows = []
    for event in in_file_order(made.events, seed):
        midnight = first[event.group] // DAY_MS * DAY_MS
        # One row of a session, whichever stands first in the file, has its first day; others can have later days.
        later = 0 if event.group not in seen else int(rng.choice([0, 0, 1, 2]))
        seen.add(event.group)
        user = rng.choice(["NA", "12345"])
        rows.append([event.group, user, items[event.item], event.time - midnight, f"{iso(midnight).date()}", later])
    last = {row[0]: place for place, row in enumerate(rows)}
    for place, row in enumerate(rows):  # in some sessions the day that counts is in the last row of the file
        if place == last[row[0]] and row[0] % 3 == 0:
            row[5] = 0
        elif row[0] % 3 == 0:
            row[5] += 1
        row[4] = f"{dt.date.fromisoformat(row[4]) + dt.timedelta(days=row[5])}"
    names = ("sessionId", "userId", "itemId") if seed % 2 else ("session_id", "user_id", "item_id")
    header = ";".join((*names, "timeframe", "eventdate"))
    write(folder / "train-item-views.csv", header, (row[:5] for row in rows), sep=";")


WRITERS: dict[str, Callable[[Path, int], None]] = {
    "yoochoose": write_yoochoose,
    "rsc15": write_yoochoose,
    "rees46": write_rees46,
    "coveo": write_coveo,
    "retailrocket": write_retailrocket,
    "diginetica": write_diginetica,
}


def pack(folder: Path) -> None:
    """Replace every file of a folder by a compressed one."""
    for path in list(folder.iterdir()):
        path.with_name(f"{path.name}.gz").write_bytes(gzip.compress(path.read_bytes(), compresslevel=1))
        path.unlink()
