"""What a preparation should not pass over in silence: signs that the log, or how it is read, is not what was meant."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from gru4rec.prepare.layout import RawLayout
from gru4rec.prepare.raw import RawEvents
from gru4rec.prepare.split import Split
from gru4rec.prepare.steps import SessionEvents

_WORDS_FOR_NOTHING = [
    "NA",
    "N/A",
    "n/a",
    "NULL",
    "Null",
    "null",
    "None",
    "none",
    "NaN",
    "nan",
    "undefined",
    "unknown",
    "-",
]

_LARGE_GROUP_FRAC = 0.05
"""A visitor with more of all rows than that is a bot, or everybody without an id."""
_MANY_GROUPS = 100
_TIED_FRAC = 0.5
"""Where more neighbours than that share a time, the order within sessions is not that of the clicks."""
_IDENTICAL_FRAC = 0.05
_LOST_AT_CUT_FRAC = 0.05
"""In a log with real times, few sessions are open at any moment."""
_FEW_SESSIONS = 50
"""Recall@20 of so few sessions has a standard error of some 5 points."""


def cautions_on_rows(raw: RawEvents, layout: RawLayout) -> Iterator[str]:
    """Look at ids: words for nothing, and one that holds a large part of all rows."""
    for key, codes, ids in ((layout.group_key, raw.group, raw.group_ids), (layout.item_key, raw.item, raw.item_ids)):
        if pa.types.is_integer(ids.type):
            continue
        words = np.flatnonzero(
            pc.is_in(ids, value_set=pa.array(_WORDS_FOR_NOTHING, ids.type)).to_numpy(zero_copy_only=False)
        )
        for code in words.tolist():
            n_rows = int(np.count_nonzero(codes == code))
            if n_rows:
                word = ids[code].as_py()
                yield (
                    f"{n_rows:,} rows have {key} {word!r}, which looks like a missing id and was taken as one. "
                    f"Leave such rows out with --missing {word}"
                )
    n_rows_of_group = np.bincount(raw.group)
    largest = int(n_rows_of_group.argmax())
    if len(raw.group_ids) >= _MANY_GROUPS and n_rows_of_group[largest] > _LARGE_GROUP_FRAC * len(raw.group):
        share = 100 * n_rows_of_group[largest] / len(raw.group)
        yield (
            f"{layout.group_key} {raw.group_ids[largest].as_py()!r} has {share:.0f}% of all rows. "
            "If it stands for everybody without an id, leave it out with --missing"
        )


def cautions_on_order(events: SessionEvents) -> Iterator[str]:
    """Look at neighbours within sessions: equal times, and equal rows."""
    follows = np.ones(events.n_events, dtype=np.bool_)
    follows[events.offsets[:-1]] = False
    n_pairs = int(np.count_nonzero(follows))
    follows[1:] &= events.time[1:] == events.time[:-1]
    n_tied = int(np.count_nonzero(follows))
    follows[1:] &= events.item[1:] == events.item[:-1]
    n_identical = int(np.count_nonzero(follows))
    if n_identical > _IDENTICAL_FRAC * events.n_events:
        yield (
            f"{n_identical:,} rows are the same as another one in session, item and time. "
            "Is a file there twice? (They count as repeats of the item just before)"
        )
    if n_tied - n_identical > _TIED_FRAC * (n_pairs - n_identical):
        yield (
            f"{100 * (n_tied - n_identical) / (n_pairs - n_identical):.0f}% of neighbouring events in a session share "
            "their time, so item ids decide on their order, and not the clicks. Name a finer --time_key"
        )


def cautions_on_split(split: Split) -> Iterator[str]:
    """Look at what the cut cost, and at what is left to test on."""
    n_lost, train, test = (
        split.dropped.get("train_session_after_cut", 0),
        split.parts["train_full"],
        split.parts["test"],
    )
    if n_lost > _LOST_AT_CUT_FRAC * (train.n_events + n_lost):
        yield (
            f"the cut goes through many sessions: {n_lost:,} events after it were in sessions that began before. "
            "Are times relative to the session, or sessions really users?"
        )
    if test.n_sessions < _FEW_SESSIONS:
        yield f"the test has {test.n_sessions} sessions: too few to measure on. Take a longer test period"
