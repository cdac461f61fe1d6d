"""Old sessions beside the new ones: which, and in which order. Knows sessions only."""

from __future__ import annotations

import numpy as np

from gru4rec.data.sessions import Sessions
from gru4rec.update.settings import ReplayChoice


def choose_replay(old: Sessions, n_sessions: int, *, how: ReplayChoice, seed: int) -> np.ndarray:
    """Return which sessions of two or more events are replayed, in the order of the log.

    Args:
        old: The old log.
        n_sessions: As many, or all where there are fewer.
        how: ``sample`` draws without replacement, each session alike; ``recent`` takes the last ones.
        seed: Of the draw.
    """
    usable = np.flatnonzero(old.lengths > 1)
    n_sessions = min(n_sessions, len(usable))
    if how == "recent":
        return usable[len(usable) - n_sessions :]
    return np.sort(np.random.default_rng([seed, 4]).choice(usable, n_sessions, replace=False))


def mixed(new: Sessions, old: Sessions, chosen: np.ndarray) -> Sessions:
    """Return all new and the chosen old sessions as one log, evenly interleaved, each kind in its own order.

    Args:
        new: The new log.
        old: The old log, in the same vocabulary.
        chosen: Which old sessions.

    Returns:
        Sessions whose start times are their places: old ones stand beside new ones.
    """
    n_new, n_old = new.n_sessions, len(chosen)
    order = np.argsort(np.r_[(np.arange(n_new) + 0.5) / n_new, (np.arange(n_old) + 0.5) / max(n_old, 1)], kind="stable")
    lengths = np.r_[new.lengths, old.lengths[chosen]][order]
    first = np.r_[new.offsets[:-1], old.offsets[:-1][chosen] + new.n_events][order]
    offsets = np.r_[0, np.cumsum(lengths)]
    position = np.arange(offsets[-1]) + np.repeat(first - offsets[:-1], lengths)
    is_new = position < new.n_events
    item_idx = np.empty(len(position), dtype=np.int32)
    item_idx[is_new] = new.items_at(position[is_new])
    item_idx[~is_new] = old.items_at(position[~is_new] - new.n_events)
    source = f"{new.source} and {n_old:,} sessions of {old.source}"
    return Sessions(item_idx, offsets, np.arange(len(order)), new.items, source)
