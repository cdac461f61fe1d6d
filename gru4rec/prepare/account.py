"""The account of a preparation: what is in each part, what was dropped and why, and the same for people."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from gru4rec.prepare.reasons import REASONS
from gru4rec.prepare.steps import SessionEvents
from gru4rec.prepare.times import Clock


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


def summary(account: Mapping[str, Any]) -> str:
    """Tell the account to people."""
    log = account["log"]
    lines = [f"{file['rows']:,} rows of {file['path']}" for file in account["files"]]
    if len(lines) > 1:
        lines.append(f"{account['rows']:,} rows")
    lines += _dropped_lines(account["dropped"])
    lines.append(
        f"{log['events']:,} events in {log['sessions']:,} sessions on {log['items']:,} items, "
        f"{log['first']} to {log['last']}"
    )
    for number, window in enumerate(account["windows"], 1):
        if len(account["windows"]) > 1:
            lines += ["", f"window {number}"]
        lines += ["", *_part_lines(window["parts"])]
        for name, title in (
            ("dropped", "events in neither train_full nor test"),
            ("dropped_inside", "events of train_full in neither train_tr nor train_valid"),
        ):
            if window[name]:
                lines += [f"{title}:", *_dropped_lines(window[name])]
    lines += _published_lines(account["published"])
    lines += ["", *(f"caution: {caution}" for caution in account["cautions"])] if account["cautions"] else []
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
