"""Why rows and events are left out: the words of the account."""

from __future__ import annotations

from collections.abc import Mapping

REASONS = {
    "other_event": "of another kind (--keep)",
    "no_session": "without a session id",
    "no_user": "without a user id",
    "no_item": "without an item id",
    "no_time": "without a time",
    "only_for_the_cut": "of another kind or without an item, read to cut sessions (--keep_after_cut)",
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


def listed(dropped: Mapping[str, int]) -> str:
    """Name what was dropped, in one line."""
    return ", ".join(f"{count:,} {REASONS[reason]}" for reason, count in dropped.items())
