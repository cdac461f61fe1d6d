"""Numbers of any log: lengths of sessions, support of items, repeats, events per day; and sessions of programs."""

from __future__ import annotations

from typing import Any

import numpy as np

from gru4rec.doctor.findings import Checked, Finding, count, percent, quantiles
from gru4rec.doctor.ordered import OrderedLog
from gru4rec.doctor.units import Timing

MIN_SUPPORT = 5
"""Papers, and ``gru4rec prepare``, leave out items of fewer events: too little to learn an embedding from."""

RARE_FRAC = 0.2
"""Share of events on such items from which on they weigh. Prepared public logs have 0.4 to 3.4 %."""

REPEATS_WARN_FRAC = 0.1
"""Share of neighbours with the same item from which on the metrics are mainly about page reloads; raw public click logs
have some per cent."""

SINGLES_WARN_FRAC = 0.8
"""Share of sessions of one event from which on the session column is suspect; shops see half of their visitors once."""

BOT_EVENTS = 20
"""Shorter sessions are not judged by speed: a person can open that many tabs at once."""

LONG_EVENTS, LONG_TIMES_P99 = 100, 10.0
"""A session is too long if it has more events than both: 100, and ten times what 99 % of sessions stay below."""

FAST_S = 1.0
"""Median seconds between events below which nobody reads what was clicked."""

ROBOTIC_SPREAD = 0.1
"""Standard deviation of a session's gaps over their mean; people's gaps spread by about their mean or more."""

COARSE_FRAC = 0.2
"""Where more of the long sessions than this are fast or regular, the log's times are coarse or made up."""

BOTS_WARN_FRAC = 0.001
"""Share of events in sessions of programs from which on they are worth a warning; every large log has one or two."""


def check_shape(ordered: OrderedLog, timing: Timing) -> Checked:
    """Count sessions, items, repeats and days."""
    lengths = ordered.lengths
    support_N = np.bincount(ordered.item_E, minlength=ordered.n_items)
    support_N = support_N[support_N > 0]
    n_repeats = int(np.count_nonzero(np.diff(ordered.item_E)[ordered.pairs] == 0))
    rare = support_N < MIN_SUPPORT
    numbers: dict[str, Any] = {
        "n_events": ordered.n_events, "n_sessions": ordered.n_sessions, "n_items": len(support_N),
        "session_length": quantiles(lengths), "item_support": quantiles(support_N),
        "n_sessions_of_one_event": int(np.count_nonzero(lengths == 1)),
        "n_items_below_support_5": int(np.count_nonzero(rare)),
        "events_below_support_5_frac": float(support_N[rare].sum() / ordered.n_events),
        "n_consecutive_repeats": n_repeats, "repeats_frac": n_repeats / max(len(ordered.pairs), 1),
        "events_per_day": {},
    }  # fmt: skip
    curves = {"lengths": lengths, "support": np.sort(support_N)[::-1]}
    seconds = timing.seconds(ordered.time_E)
    if seconds is not None:
        day = (seconds // 86_400).astype(np.int64)
        per_day = np.bincount(day - day.min()) if np.ptp(day) < 100_000 else np.empty(0, dtype=np.int64)
        numbers["events_per_day"] = quantiles(per_day) | {"n_days": len(per_day)}
        curves |= {"per_day": per_day, "first_day": day.min(keepdims=True)}
    return Checked(numbers, [*_repeats(numbers), *_singles(numbers), *_rare(numbers)], curves)


def _repeats(numbers: dict[str, Any]) -> list[Finding]:
    n, frac = numbers["n_consecutive_repeats"], numbers["repeats_frac"]
    if not n:
        return []
    return [Finding(
        "consecutive-repeats", "warning" if frac >= REPEATS_WARN_FRAC else "note",
        f"{count(n, 'event')} ({percent(frac)} of those to predict) {'repeats' if n == 1 else 'repeat'} the item just "
        "before. Recall then rewards saying the same item again; drop them, unless a repeat means something. (gru4rec "
        "prepare drops them first; leaving rare items out afterwards can bring equal items together)",
    )]  # fmt: skip


def _singles(numbers: dict[str, Any]) -> list[Finding]:
    n, frac = numbers["n_sessions_of_one_event"], numbers["n_sessions_of_one_event"] / numbers["n_sessions"]
    if not n:
        return []
    is_odd = frac >= SINGLES_WARN_FRAC
    advice = "Is the session column one that numbers events?" if is_odd else "They are skipped, which needs no action"
    return [Finding(
        "single-event-sessions", "warning" if is_odd else "note",
        f"{count(n, 'session')} ({percent(frac)}) of one event give nothing to learn from. {advice}",
    )]  # fmt: skip


def _rare(numbers: dict[str, Any]) -> list[Finding]:
    n, frac = numbers["n_items_below_support_5"], numbers["events_below_support_5_frac"]
    if not n:
        return []
    return [Finding(
        "rare-items", "warning" if frac >= RARE_FRAC else "note",
        f"{count(n, 'item')} of {numbers['n_items']:,} with fewer than {MIN_SUPPORT} events, {percent(frac)} of all "
        "events. Their vectors stay near where they began; leave them out, or use a longer log. (gru4rec prepare "
        "leaves them out before it splits by time, and a part of the log has rare items of its own)",
    )]  # fmt: skip


def check_bots(ordered: OrderedLog, timing: Timing) -> Checked:
    """Find sessions too long, too fast or too regular for a person."""
    lengths = ordered.lengths
    limit = max(LONG_EVENTS, LONG_TIMES_P99 * float(np.quantile(lengths, 0.99)))
    kinds = {"too_long": lengths > limit, **_by_speed(ordered, timing)}
    any_S = np.any(list(kinds.values()), axis=0)
    frac = float(lengths[any_S].sum() / ordered.n_events)
    numbers: dict[str, float] = {f"n_{kind}": int(np.count_nonzero(is_S)) for kind, is_S in kinds.items()}
    numbers |= {"length_limit": limit, "events_frac": frac}
    if not any_S.any():
        return Checked(numbers)
    parts = ", ".join(f"{is_S.sum():,} {kind.replace('_', ' ')}" for kind, is_S in kinds.items() if is_S.any())
    worst, n_bots = int(np.where(any_S, lengths, 0).argmax()), int(np.count_nonzero(any_S))
    finding = Finding(
        "bot-like-sessions", "warning" if frac >= BOTS_WARN_FRAC else "note",
        f"{count(n_bots, 'session')} with {percent(frac)} of all events may be a program's ({parts}); the longest is "
        f"session {ordered.session_id(worst)} with {count(int(lengths[worst]), 'event')}, while 99 % of sessions have "
        f"at most {np.quantile(lengths, 0.99):.0f}. Leave them out, or a crawler's path becomes a recommendation",
    )  # fmt: skip
    return Checked(numbers, [finding])


def _by_speed(ordered: OrderedLog, timing: Timing) -> dict[str, np.ndarray]:
    """Return bool (S,) of each kind; none where times are a mere order, or too coarse to judge by."""
    long_S = ordered.lengths >= BOT_EVENTS
    seconds = timing.seconds(np.diff(ordered.time_E))
    if seconds is None or not long_S.any():
        return {}
    pairs = ordered.pairs
    gap_P, session_P = seconds[pairs], ordered.session_E[pairs]
    n_gaps_S = np.maximum(ordered.lengths - 1, 1)
    mean_S = np.bincount(session_P, gap_P, ordered.n_sessions) / n_gaps_S
    spread_S = np.sqrt(np.bincount(session_P, (gap_P - mean_S[session_P]) ** 2, ordered.n_sessions) / n_gaps_S)
    n_short_S = np.bincount(session_P[gap_P < FAST_S], minlength=ordered.n_sessions)
    kinds = {
        "too_fast": long_S & (2 * n_short_S > n_gaps_S),
        "too_regular": long_S & (mean_S > 0) & (spread_S < ROBOTIC_SPREAD * mean_S),
    }
    n_long = int(np.count_nonzero(long_S))
    few = max(COARSE_FRAC * n_long, 3)
    return {kind: is_S for kind, is_S in kinds.items() if np.count_nonzero(is_S) <= few}
