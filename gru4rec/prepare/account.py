"""The account of a preparation: what is in each part, what was dropped and why, and the same for people."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from gru4rec.prepare.steps import SessionEvents
from gru4rec.prepare.times import Clock

REASONS = {
    "other_event": "of another kind (--keep)",
    "no_session": "without a session id",
    "no_user": "without a user id",
    "no_item": "without an item id",
    "no_time": "without a time",
    "only_for_the_cut": "of another kind or without an item, read to cut sessions (--keep-after-cut)",
    "repeat": "repeat the item just before",
    "short_session": "in sessions that are too short",
    "rare_item": "of items with too few events",
    "later_window": "in the test periods of later windows",
    "before_train_days": "in sessions from before --train_days",
    "train_session_after_cut": "after the cut, in sessions that began before it",
    "train_session_of_one": "alone in their session before the cut",
    "test_cold_item": "in the test, of items that training does not have",
    "test_session_of_one": "alone in their test session",
}
"""Why an event is in no part: each reason with its words in the summary, in the order of the work."""


@dataclass(frozen=True)
class Published:
    """What was published about a part of a log that was prepared in the same way."""

    part: str
    events: int
    sessions: int
    items: int | None = None


def counts(events: SessionEvents, clock: Clock) -> dict[str, Any]:
    """Count what a part holds; it must hold something."""
    return {
        "events": events.n_events,
        "sessions": events.n_sessions,
        "items": events.n_items,
        "first": clock.moment(events.time.min().item()),
        "last": clock.moment(events.time.max().item()),
    }


def compared(parts: Mapping[str, Mapping[str, Any]], published: Sequence[Published]) -> list[dict[str, Any]]:
    """Set published counts beside those that came out."""
    return [
        {"part": one.part, "count": name, "published": wanted, "here": parts[one.part][name]}
        for one in published
        for name in ("events", "sessions", "items")
        if (wanted := getattr(one, name)) is not None
    ]


def listed(dropped: Mapping[str, int]) -> str:
    """Name what was dropped, in one line."""
    return ", ".join(f"{count:,} {REASONS[reason]}" for reason, count in dropped.items()) or "none dropped"


def summary(account: Mapping[str, Any]) -> str:
    """Tell the account to people."""
    log = account["log"]
    lines = [f"{account['rows']:,} rows", *_dropped_lines(account["dropped"])]
    lines.append(
        f"{log['events']:,} events in {log['sessions']:,} sessions on {log['items']:,} items, "
        f"{log['first']} to {log['last']}"
    )
    for number, window in enumerate(account["windows"], 1):
        if len(account["windows"]) > 1:
            lines += ["", f"window {number}"]
        lines += ["", *_part_lines(window["parts"])]
        for name, title in (("dropped", "in no part"), ("dropped_inside", "in train_full only")):
            if window[name]:
                lines += [f"{title}:", *_dropped_lines(window[name])]
    lines += _published_lines(account["published"])
    return "\n".join(lines) + "\n"


def _dropped_lines(dropped: Mapping[str, int]) -> list[str]:
    return [f"  - {count:>13,} {REASONS[reason]}" for reason, count in dropped.items()]


def _part_lines(parts: Mapping[str, Mapping[str, Any]]) -> list[str]:
    lines = [f"{'':<12}{'events':>14}{'sessions':>13}{'items':>12}  from, to"]
    for name, part in parts.items():
        numbers = f"{part['events']:>14,}{part['sessions']:>13,}{part['items']:>12,}"
        lines.append(f"{name:<12}{numbers}  {part['first']}, {part['last']}")
    return lines


def _published_lines(comparison: Sequence[Mapping[str, Any]]) -> list[str]:
    if not comparison:
        return []
    lines = ["", "published counts:"]
    for row in comparison:
        verdict = "the same" if row["published"] == row["here"] else f"here {row['here']:,}"
        lines.append(f"  {row['part']} {row['count']} {row['published']:,}: {verdict}")
    if any(row["published"] != row["here"] for row in comparison):
        lines.append("  They differ: is the raw log complete, and the one that was published?")
    return lines
