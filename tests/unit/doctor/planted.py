"""A clean shop's log as three columns, and what is done to it: one fault each."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from typing import Any

import numpy as np
import pyarrow as pa

from gru4rec.data.simulate import DAY_S, START_S, ShopSettings, simulate_shop
from gru4rec.doctor.examine import Report, examine

SIZE: dict[str, Any] = {"n_items": 300, "n_categories": 15, "n_sessions": 4_000, "days": 20, "drift": 0.0}
Rows = dict[str, np.ndarray]


@cache
def _shop_rows(seed: int, **size: Any) -> Rows:
    shop = simulate_shop(ShopSettings(**SIZE | size, seed=seed))
    columns = {"SessionId": shop.session_id, "ItemId": shop.item_id, "Time": shop.time}
    for column in columns.values():
        column.flags.writeable = False
    return columns


def clean(seed: int = 1, **size: Any) -> Rows:
    """Return a log without a fault; its arrays are the caller's own."""
    return {name: column.copy() for name, column in _shop_rows(seed, **size).items()}


def split(rows: Rows, days: float = 4) -> tuple[Rows, Rows]:
    """Split by the start of sessions, as it should be done."""
    ids, code = np.unique(rows["SessionId"], return_inverse=True)
    start = np.full(len(ids), np.iinfo(np.int64).max)
    np.minimum.at(start, code, rows["Time"])
    late = (start >= rows["Time"].max() - days * DAY_S)[code]
    return taken(rows, ~late), taken(rows, late)


def taken(rows: Rows, which: np.ndarray) -> Rows:
    """Return some of the rows."""
    return {name: column[which] for name, column in rows.items()}


def joined(*parts: Rows) -> Rows:
    """Return rows one after the other."""
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def in_time_order(rows: Rows) -> Rows:
    """Return the rows as a shop writes them."""
    return taken(rows, np.argsort(rows["Time"], kind="stable"))


def session(n: int, gaps_s: Any, items: np.ndarray, start: int = START_S + 5 * DAY_S) -> Rows:
    """Return one session with a new id, of ``n`` events with these gaps."""
    time = start + np.cumsum(np.broadcast_to(gaps_s, n)) - np.ravel(gaps_s)[0]
    return {"SessionId": np.full(n, 7), "ItemId": items[:n], "Time": time.astype(np.int64)}


def examined(rows: Rows, test: Rows | None = None) -> Report:
    """Run the doctor, without the training run."""
    return examine(pa.table(rows), None if test is None else pa.table(test), timing=False)


def names(report: Report, severities: Iterable[str] = ("error", "warning")) -> set[str]:
    """Return the names of the findings of these severities."""
    return {finding.name for finding in report.findings if finding.severity in severities}


def message(report: Report, name: str) -> str:
    """Return the message of the one finding of that name."""
    found = [finding.message for finding in report.findings if finding.name == name]
    assert len(found) == 1, (name, report.findings)
    return found[0]
