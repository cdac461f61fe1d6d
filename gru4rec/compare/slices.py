"""Groups of targets that are measured apart: where a model is good, and where it is not."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from gru4rec.data.sessions import Sessions
from gru4rec.prepare.times import TICKS_PER_S, unit_of

DAY_S = 86_400
Slice = tuple[str, np.ndarray]
"""A name, and a bool (T,) that tells which targets are in."""


def slices_of(test: Sessions, train: Sessions) -> dict[str, list[Slice]]:
    """Group the targets of a test log in all ways; targets are in the order of the sessions' events.

    Args:
        test: Encoded with the vocabulary of ``train``.
        train: The training log.
    """
    position, length, target, session = targets_of(test)
    found = {
        "position in session": _ranges(position, ((1, 1), (2, 2), (3, 3), (4, 6), (7, 12), (13, None))),
        "session length": _ranges(length, ((2, 2), (3, 3), (4, 5), (6, 10), (11, 20), (21, None))),
        "item support": _by_support(train.support(), target),
        "target clicked before": _by_repeat(test),
        "day": _by_day(test.start_time[session]),
    }
    return {name: groups for name, groups in found.items() if len(groups) > 1}


def targets_of(test: Sessions) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return of each target: clicks before it, events of its session, its item, its session."""
    session = np.repeat(np.arange(test.n_sessions), test.lengths)
    position = np.arange(test.n_events) - test.offsets[session]
    is_target = position > 0
    return position[is_target], test.lengths[session[is_target]], test.item_idx[is_target], session[is_target]


def clicked_before(test: Sessions) -> np.ndarray:
    """Return bool (T,): whether the session holds the target already."""
    session = np.repeat(np.arange(test.n_sessions, dtype=np.int64), test.lengths)
    keys = session * test.items.n_items + test.item_idx
    _, first = np.unique(keys, return_index=True)
    is_repeat = np.ones(test.n_events, dtype=bool)
    is_repeat[first] = False
    is_target = np.arange(test.n_events) > test.offsets[session]
    return np.asarray(is_repeat[is_target])


def _ranges(values: np.ndarray, bounds: tuple[tuple[int, int | None], ...]) -> list[Slice]:
    named = ((_range_name(low, high), (values >= low) & (values <= (high or values.max()))) for low, high in bounds)
    return [(name, inside) for name, inside in named if inside.any()]


def _range_name(low: int, high: int | None) -> str:
    return f"{low}+" if high is None else str(low) if low == high else f"{low} to {high}"


def _by_support(support_N: np.ndarray, target: np.ndarray) -> list[Slice]:
    """Split by popularity: the head is the fewest items that make up half of the clicks, the tail the last fifth."""
    order = np.argsort(-support_N, kind="stable")
    reached = np.cumsum(support_N[order]) / max(int(support_N.sum()), 1)
    place = np.empty(len(order), dtype=np.float64)
    place[order] = np.r_[0.0, reached[:-1]]
    groups = (("head", place < 0.5), ("middle", (place >= 0.5) & (place < 0.8)), ("tail", place >= 0.8))
    named = ((f"{name} ({np.count_nonzero(of_item):,} items)", of_item[target]) for name, of_item in groups)
    return [(name, inside) for name, inside in named if inside.any()]


def _by_repeat(test: Sessions) -> list[Slice]:
    repeat = clicked_before(test)
    return [(name, inside) for name, inside in (("new item", ~repeat), ("repeat", repeat)) if inside.any()]


def _by_day(start_time: np.ndarray) -> list[Slice]:
    """Group by day (UTC) where the size of the times tells their unit; else by quarters of the log."""
    time, unit = np.asarray(start_time, dtype=np.float64), unit_of(start_time)
    if unit is not None:
        return list(_days(np.floor(time / TICKS_PER_S[unit] / DAY_S).astype(np.int64)))
    edges = np.quantile(time, (0.25, 0.5, 0.75))
    quarter = np.searchsorted(edges, time, side="left")
    return [(f"quarter {place + 1} of the test log", quarter == place) for place in np.unique(quarter)]


def _days(day: np.ndarray) -> Iterator[Slice]:
    for one in np.unique(day):
        yield str(np.datetime64(int(one), "D")), day == one
