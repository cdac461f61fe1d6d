"""The six recipes once more, slowly: plain pandas and Python loops, one function a sentence of the description.

Nothing here is shared with gru4rec/prepare, and nothing is clever. Ids are integers where all of a column are written
as Python writes integers, else text. Times are whole numbers (seconds or milliseconds) until the very end.
"""

from __future__ import annotations

import datetime as dt
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd

HOUR_S = 3_600
HOUR_MS = 3_600_000
DAY_S = 24 * HOUR_S
DAY_MS = 24 * HOUR_MS


@dataclass
class Literal:
    """What a recipe must give, and what it met on the way."""

    n_rows: int  # raw rows
    events: (
        pd.DataFrame
    )  # all rows that sessions are made of, ordered: session, item, time, kept (of the event to keep)
    log: pd.DataFrame  # session, item, time after all filters
    cuts: tuple[int, int]  # the first moment of the test part, and of the validation part
    dropped: Counter[str] = field(default_factory=Counter)  # events that left on the way from the rows to the log
    rounds: list[tuple[int, int]] = field(default_factory=list)  # events in short sessions, of rare items
    split_dropped: Counter[str] = field(default_factory=Counter)
    inside_dropped: Counter[str] = field(default_factory=Counter)
    parts: dict[str, pd.DataFrame] = field(default_factory=dict)  # SessionId, ItemId, Time, as in the files


# --- reading ---


def raw_file(folder: Path, name: str) -> Path:
    """Return the file, or the same file compressed."""
    return folder / name if (folder / name).exists() else folder / f"{name}.gz"


def read(folder: Path, *names: str, sep: str = ",", columns: list[str] | None = None) -> pd.DataFrame:
    """Read files below one another; every value is text, exactly as it is written."""
    frames = []
    for name in names:
        path = raw_file(folder, name)
        frames.append(
            pd.read_csv(
                path,
                sep=sep,
                header=None if columns else 0,
                names=columns,
                dtype=object,
                keep_default_na=False,
                compression="gzip" if path.read_bytes()[:2] == b"\x1f\x8b" else None,
            )
        )
    return pd.concat(frames, ignore_index=True).astype(object)


def ids(column: pd.Series) -> list[int] | list[str]:
    """Return integers if every id is a usual spelling of one, else the texts."""
    texts = [str(value) for value in column]
    for text in texts:
        digits = text.removeprefix("-")
        if not (digits.isascii() and digits.isdigit() and str(int(text)) == text):
            return texts
    return [int(text) for text in texts]


def milliseconds(text: str) -> int:
    """Return the milliseconds since 1970 of an ISO time in UTC."""
    since = dt.datetime.fromisoformat(text) - dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
    return since // dt.timedelta(milliseconds=1)


def table(group: list, item: list, time: list[int], kept: list[bool] | None = None) -> pd.DataFrame:
    rows = pd.DataFrame(
        {
            "group": pd.Series(group, dtype=object),
            "item": pd.Series(item, dtype=object),
            "time": pd.Series(time, dtype=object),
        }
    )
    rows["kept"] = True if kept is None else kept
    return rows


# --- the sentences ---


def order(rows: pd.DataFrame) -> pd.DataFrame:
    """Order by (user or session, time, item); equal rows stay as they are."""
    places = sorted(range(len(rows)), key=lambda i: (rows["group"][i], rows["time"][i], rows["item"][i]))
    return rows.iloc[places].reset_index(drop=True)


def sessions_as_given(rows: pd.DataFrame) -> pd.DataFrame:
    return rows.assign(session=rows["group"])


def cut_sessions(rows: pd.DataFrame, gap: int) -> pd.DataFrame:
    """Begin a new session where the user changes or a gap exceeds `gap`; number the sessions from 1."""
    numbers = []
    number, last_group, last_time = 0, None, None
    for group, time in zip(rows["group"], rows["time"], strict=True):
        if number == 0 or group != last_group or time - last_time > gap:
            number += 1
        numbers.append(number)
        last_group, last_time = group, time
    return rows.assign(session=pd.Series(numbers, dtype=object))


def keep_marked(rows: pd.DataFrame) -> pd.DataFrame:
    """Keep the events that the log is made of (views, details)."""
    return rows[rows["kept"]].reset_index(drop=True)


def drop_repeats(rows: pd.DataFrame) -> pd.DataFrame:
    """Drop an event whose item equals the previous one of the same session."""
    stay = []
    last_session, last_item = None, None
    for session, item in zip(rows["session"], rows["item"], strict=True):
        stay.append(not (session == last_session and item == last_item))
        last_session, last_item = session, item
    return rows[stay].reset_index(drop=True)


def drop_short_sessions(rows: pd.DataFrame, n: int = 2) -> pd.DataFrame:
    length = Counter(rows["session"])
    return rows[[length[session] >= n for session in rows["session"]]].reset_index(drop=True)


def drop_rare_items(rows: pd.DataFrame, n: int = 5) -> pd.DataFrame:
    support = Counter(rows["item"])
    return rows[[support[item] >= n for item in rows["item"]]].reset_index(drop=True)


def filter_until_nothing_changes(rows: pd.DataFrame, made: Literal) -> pd.DataFrame:
    while True:
        long = drop_short_sessions(rows)
        known = drop_rare_items(long)
        made.rounds.append((len(rows) - len(long), len(long) - len(known)))
        if made.rounds[-1] == (0, 0):
            break
        rows = known
    made.dropped["short"] = sum(short for short, _ in made.rounds)
    made.dropped["rare"] = sum(rare for _, rare in made.rounds)
    return rows


def filter_once(rows: pd.DataFrame, made: Literal) -> pd.DataFrame:
    long = drop_short_sessions(rows)
    known = drop_rare_items(long)
    log = drop_short_sessions(known)
    made.rounds += [(len(rows) - len(long), len(long) - len(known)), (len(known) - len(log), 0)]
    made.dropped["short"] = len(rows) - len(long) + len(known) - len(log)
    made.dropped["rare"] = len(long) - len(known)
    return log


def split_by_first_event(rows: pd.DataFrame, cut: int, dropped: Counter[str]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Test: sessions whose first event is at or after the cut. Train: events before it, then sessions of 2 or more."""
    first: dict = {}
    for session, time in zip(rows["session"], rows["time"], strict=True):
        first[session] = min(time, first.get(session, time))
    late = [first[session] >= cut for session in rows["session"]]
    test = rows[late].reset_index(drop=True)
    rest = rows[[not is_late for is_late in late]].reset_index(drop=True)
    before = rest[[time < cut for time in rest["time"]]].reset_index(drop=True)
    train = drop_short_sessions(before)
    dropped["after cut"] += len(rest) - len(before)
    dropped["short"] += len(before) - len(train)
    return train, test


def split_by_last_event(rows: pd.DataFrame, cut: int, dropped: Counter[str]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Test: sessions whose last event is at or after the cut, without items that train lacks, then of 2 or more."""
    last: dict = {}
    for session, time in zip(rows["session"], rows["time"], strict=True):
        last[session] = max(time, last.get(session, time))
    late = [last[session] >= cut for session in rows["session"]]
    train = rows[[not is_late for is_late in late]].reset_index(drop=True)
    test = rows[late].reset_index(drop=True)
    items = set(train["item"])
    known = test[[item in items for item in test["item"]]].reset_index(drop=True)
    long = drop_short_sessions(known)
    dropped["unknown"] += len(test) - len(known)
    dropped["short"] += len(known) - len(long)
    return train, long


def as_in_the_files(rows: pd.DataFrame, thousandths: bool) -> pd.DataFrame:
    """Name the columns; milliseconds become seconds if `thousandths`: whole numbers if all are, else fractions."""
    times = list(rows["time"])
    return pd.DataFrame(
        {
            "SessionId": pd.Series(list(rows["session"]), dtype=None if len(rows) else object),
            "ItemId": pd.Series(list(rows["item"]), dtype=None if len(rows) else object),
            "Time": pd.Series([time / 1000 for time in times] if thousandths else times),
        }
    )


def finish(
    rows: pd.DataFrame,
    made: Literal,
    last_time: int | None,
    window: int,
    *,
    iso: bool = False,
    filter: Callable[[pd.DataFrame, Literal], pd.DataFrame] = filter_until_nothing_changes,
    split: Callable[..., tuple[pd.DataFrame, pd.DataFrame]] = split_by_first_event,
) -> Literal:
    """Filter and split what is left, and once more inside train."""
    fractions = iso and any(time % 1000 for time in made.events["time"])
    log = filter(rows, made)
    t = max(log["time"]) if last_time is None else last_time
    made.log, made.cuts = log, (t - window, t - 2 * window)
    train_full, test = split(log, made.cuts[0], made.split_dropped)
    train_tr, train_valid = split(train_full, made.cuts[1], made.inside_dropped)
    for name, part in {
        "train_full": train_full,
        "test": test,
        "train_tr": train_tr,
        "train_valid": train_valid,
    }.items():
        if iso and not fractions:
            part = part.assign(time=[time // 1000 for time in part["time"]])
        made.parts[name] = as_in_the_files(part, fractions)
    return made


def started(raw: pd.DataFrame, events: pd.DataFrame) -> Literal:
    return Literal(len(raw), events, events, (0, 0), Counter({"other": len(raw) - int(events["kept"].sum())}))


# --- the recipes ---

CLICKS = ["session", "time", "item", "category"]


def yoochoose(folder: Path) -> Literal:
    """Clicks and test clicks, sessions as given, seconds; w is 1 day."""
    raw = read(folder, "yoochoose-clicks.dat", "yoochoose-test.dat", columns=CLICKS)
    rows = order(table(ids(raw["session"]), ids(raw["item"]), [milliseconds(text) for text in raw["time"]]))
    rows = sessions_as_given(rows)
    made = started(raw, rows)
    unique = drop_repeats(rows)
    made.dropped["repeats"] = len(rows) - len(unique)
    return finish(unique, made, None, DAY_MS, iso=True)


def rsc15(folder: Path) -> Literal:
    """Clicks only, repeats kept, one pass, split by the last event of a session; w is 1 day."""
    raw = read(folder, "yoochoose-clicks.dat", columns=CLICKS)
    rows = order(table(ids(raw["session"]), ids(raw["item"]), [milliseconds(text) for text in raw["time"]]))
    rows = sessions_as_given(rows)
    made = started(raw, rows)
    return finish(rows, made, None, DAY_MS, iso=True, filter=filter_once, split=split_by_last_event)


def rees46(folder: Path) -> Literal:
    """Views of October and November, cut per user among views, seconds; t is 1575158400, w is 1 day."""
    raw = read(folder, "2019-Oct.csv", "2019-Nov.csv")
    views = raw[raw["event_type"] == "view"]
    times = [milliseconds(text.removesuffix(" UTC") + "+00:00") // 1000 for text in views["event_time"]]
    rows = cut_sessions(order(table(ids(views["user_id"]), ids(views["product_id"]), times)), HOUR_S)
    made = started(raw, rows)
    unique = drop_repeats(rows)
    made.dropped["repeats"] = len(rows) - len(unique)
    return finish(unique, made, 1575158400, DAY_S)


def coveo(folder: Path) -> Literal:
    """Cut over all product events (those with a product action) of a session hash, then details; ms; w is 1 day."""
    raw = read(folder, "release_10_23_2020.csv")
    products = raw[raw["product_action"] != ""]
    times = [int(text) for text in products["server_timestamp_epoch_ms"]]
    # An event without a product hash is no view of an item; it still tells that the visitor was there.
    details = [
        action == "detail" and item != ""
        for action, item in zip(products["product_action"], products["product_skus_hash"], strict=True)
    ]
    rows = table(ids(products["session_id_hash"]), ids(products["product_skus_hash"]), times, details)
    rows = cut_sessions(order(rows), HOUR_MS)
    made = started(raw, rows)
    return after_the_cut(rows, made, None, DAY_MS)


def retailrocket(folder: Path) -> Literal:
    """Cut over all events of a visitor, then views; ms; t is 1442545200000, w is 7 days."""
    raw = read(folder, "events.csv")
    times = [int(text) for text in raw["timestamp"]]
    views = [event == "view" for event in raw["event"]]
    rows = cut_sessions(order(table(ids(raw["visitorid"]), ids(raw["itemid"]), times, views)), HOUR_MS)
    made = started(raw, rows)
    return after_the_cut(rows, made, 1442545200000, 7 * DAY_MS)


def after_the_cut(rows: pd.DataFrame, made: Literal, last_time: int | None, window: int) -> Literal:
    views = keep_marked(rows)
    unique = drop_repeats(views)
    made.dropped["repeats"] = len(views) - len(unique)
    return finish(unique, made, last_time, window)


def diginetica(folder: Path) -> Literal:
    """Sessions as given; time is the session's earliest date in ms plus the time frame; w is 7 days."""
    raw = read(folder, "train-item-views.csv", sep=";")
    raw.columns = [name.replace("_id", "Id") for name in raw.columns]
    earliest: dict[str, int] = {}
    for session, date in zip(raw["sessionId"], raw["eventdate"], strict=True):
        midnight = milliseconds(f"{date}T00:00:00+00:00")
        earliest[session] = min(midnight, earliest.get(session, midnight))
    times = [earliest[session] + int(frame) for session, frame in zip(raw["sessionId"], raw["timeframe"], strict=True)]
    rows = sessions_as_given(order(table(ids(raw["sessionId"]), ids(raw["itemId"]), times)))
    made = started(raw, rows)
    unique = drop_repeats(rows)
    made.dropped["repeats"] = len(rows) - len(unique)
    return finish(unique, made, None, 7 * DAY_MS)


RECIPES: dict[str, Callable[[Path], Literal]] = {
    "yoochoose": yoochoose,
    "rsc15": rsc15,
    "rees46": rees46,
    "coveo": coveo,
    "retailrocket": retailrocket,
    "diginetica": diginetica,
}
