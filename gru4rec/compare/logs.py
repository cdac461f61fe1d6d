"""The logs of a comparison: read once, the validation cut made where none is given, and a digest of each."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from gru4rec.compare.plan_file import DataPlan
from gru4rec.data.files import Columns
from gru4rec.data.session_map import load_sessions
from gru4rec.data.sessions import Sessions
from gru4rec.data.vocabulary import Vocabulary
from gru4rec.errors import DataError

FIRST_PART, LAST_PART = "first part", "last part"
"""What is said of the two logs that are cut from one."""


@dataclass(frozen=True)
class Logs:
    """The logs.

    Attributes:
        train: All that final models are fitted to.
        test: Encoded with its vocabulary.
        train_tr: What models are fitted to for tuning; None where nothing needs it.
        train_valid: What they are tuned on, encoded with the vocabulary of ``train_tr``.
        valid_rule: How the two were cut from ``train``, in words; None where they were given.
    """

    train: Sessions
    test: Sessions
    train_tr: Sessions | None = None
    train_valid: Sessions | None = None
    valid_rule: str | None = None


def read_logs(data: DataPlan, *, needs_valid: bool, where: str, tell: Callable[[str], None]) -> Logs:
    """Read what the plan names.

    Args:
        data: The logs.
        needs_valid: Whether validation logs are used.
        where: What messages call the plan.
        tell: Called with a line a log.

    Raises:
        DataError: A log cannot be used.
    """
    columns = Columns(
        session_key=data.session_key,
        item_key=data.item_key,
        time_key=data.time_key,
        given_as=tuple(f"data.{name}" for name in ("session_key", "item_key", "time_key")),
        advice=f"Set {{name}} in {where}",
    )

    def read(path: str, vocabulary: Vocabulary | None = None) -> Sessions:
        sessions = load_sessions(path, columns=columns, vocabulary=vocabulary)
        tell(sessions.report())
        sessions.check_predictable()
        return sessions

    assert data.train is not None
    assert data.test is not None
    train = read(data.train)
    test = read(data.test, train.items)
    if not needs_valid:
        return Logs(train, test)
    if data.train_tr is not None and data.train_valid is not None:
        train_tr = read(data.train_tr)
        return Logs(train, test, train_tr, read(data.train_valid, train_tr.items))
    train_tr, valid = cut(train, data.valid_share)
    tell(f"for tuning: {train_tr.report()}; {valid.report()}")
    valid.check_predictable()
    rule = f"the last {data.valid_share:.0%} of the training sessions by the time of their first event"
    return Logs(train, test, train_tr, valid, rule)


def cut(train: Sessions, valid_share: float) -> tuple[Sessions, Sessions]:
    """Cut the last sessions off, as a validation log of the others.

    Returns:
        The others, with a vocabulary of their own; and the last ones, encoded with it.

    Raises:
        DataError: One of the two would be empty.
    """
    n_first = train.n_sessions - round(train.n_sessions * valid_share)
    if not 0 < n_first < train.n_sessions:
        raise DataError(f"{train.source} has {train.n_sessions} sessions, too few to cut {valid_share:.0%} of them off")
    first, last = train.part(0, n_first), train.part(n_first, train.n_sessions)
    items = Vocabulary(train.items.ids_of(np.flatnonzero(first.support())))
    first = replace(first.with_vocabulary(items), n_unknown_events=0, n_unknown_items=0)  # they lack none of their own
    return (
        replace(first, source=f"{train.source} ({FIRST_PART})"),
        replace(last.with_vocabulary(items), source=f"{train.source} ({LAST_PART})"),
    )


def digest(sessions: Sessions) -> str:
    """Return a text that differs where the events, their order, the times or the ids do."""
    found = hashlib.sha256()
    for array in (sessions.item_idx, sessions.offsets, sessions.start_time):
        found.update(np.ascontiguousarray(array).tobytes())
    found.update("\n".join(map(str, sessions.items.ids_of(np.arange(sessions.items.n_items)))).encode())
    return found.hexdigest()


def described(role: str, path: str, part: str | None, sessions: Sessions, found: str) -> dict[str, Any]:
    """Return what the report says about a log, or a part of one; ``found`` is its :func:`digest`."""
    return {
        "role": role,
        "path": path,
        "part": part,
        "n_events": sessions.n_events,
        "n_sessions": sessions.n_sessions,
        "n_items": int(np.count_nonzero(sessions.support())),
        "first_start": float(sessions.start_time[0]),
        "last_start": float(sessions.start_time[-1]),
        "n_unknown_events": sessions.n_unknown_events,
        "n_unknown_items": sessions.n_unknown_items,
        "n_lost_sessions": sessions.n_lost_sessions,
        "n_single_event_sessions": sessions.n_single_event_sessions,
        "mean_length": sessions.n_events / sessions.n_sessions,
        "digest": found,
    }
