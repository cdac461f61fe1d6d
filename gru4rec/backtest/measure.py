"""How well a model predicts the part that follows, items that it does not know included."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from gru4rec.api import GRU4Rec
from gru4rec.data.sessions import Sessions
from gru4rec.data.vocabulary import Vocabulary
from gru4rec.evaluate.evaluator import evaluate
from gru4rec.evaluate.metrics import event_values
from gru4rec.evaluate.ranks import TieMode


def measure(
    gru: GRU4Rec, following: Sessions, new_items: Vocabulary | None, *, cutoffs: Sequence[int], ties: TieMode
) -> dict[str, Any]:
    """Rank every target of a log among all items that the model knows.

    Clicks on items that the model does not know are skipped, as in serving. A target is *known* where the model knows
    its item and an earlier item of its session. All others are misses of ``all``, whose denominator is the number of
    targets in the log, and do not stand in ``known``, which flatters a model that knows little.

    Args:
        gru: The model.
        following: The log, in a vocabulary of its own.
        new_items: Items that are new in this window; None where there are none.
        cutoffs: List lengths.
        ties: Tie mode.

    Returns:
        ``n_targets``, ``n_known``; ``all`` and ``known``, each with ``recall`` and ``mrr`` by list length; and ``new``:
        ``n_targets`` on new items, and by list length ``recall`` on them (misses counted; None without any),
        ``share_of_lists`` that hold a new item, and ``share_of_places`` that new items have. Lists are those of the
        known targets; what is over none of these is None.
    """
    items = _items_of(gru)
    n_new_targets = int(_marked(following.items, new_items)[_targets(following)].sum())
    known = _known_events(following, items)
    if known is None:
        ranks, is_new_T = np.empty(0), np.empty(0, dtype=bool)
        listed_new_TK = np.empty((0, max(cutoffs)), dtype=bool)
    else:
        found = evaluate(gru.scorer(), known, list_length=max(cutoffs))
        ranks = found.counts.ranks(ties, seed=gru.settings.draw_seed)
        is_new_N = _marked(items, new_items)
        assert found.lists_TK is not None
        is_new_T, listed_new_TK = is_new_N[_targets(known)], is_new_N[found.lists_TK]
    sums = {
        metric: {str(k): float(event_values(ranks, metric, k).sum()) for k in cutoffs} for metric in ("recall", "mrr")
    }
    return {
        "n_targets": following.n_targets,
        "n_known": len(ranks),
        "all": _means(sums, following.n_targets),
        "known": _means(sums, len(ranks)),
        "new": {
            "n_targets": n_new_targets,
            "recall": {str(k): _mean(float((ranks[is_new_T] <= k).sum()), n_new_targets) for k in cutoffs},
            "share_of_lists": {
                str(k): _mean(float(listed_new_TK[:, :k].any(axis=1).sum()), len(ranks)) for k in cutoffs
            },
            "share_of_places": {str(k): _mean(float(listed_new_TK[:, :k].sum()), len(ranks) * k) for k in cutoffs},
        },
    }


def _known_events(following: Sessions, items: Vocabulary) -> Sessions | None:
    """Return the events of known items; None where no two of them stand in one session."""
    if not (items.encode(following.items.item_ids)[following.items_at(slice(None))] >= 0).any():
        return None
    known = following.with_vocabulary(items)
    return known if known.n_targets else None


def _items_of(gru: GRU4Rec) -> Vocabulary:
    assert gru.items is not None
    return gru.items


def _means(sums: dict[str, dict[str, float]], n: int) -> dict[str, dict[str, float | None]]:
    return {metric: {k: _mean(total, n) for k, total in by_k.items()} for metric, by_k in sums.items()}


def _mean(total: float, n: int) -> float | None:
    """Return the mean; None over nothing."""
    return total / n if n else None


def _targets(sessions: Sessions) -> np.ndarray:
    """Return the item index of every event but a session's first."""
    is_target = np.ones(sessions.n_events, dtype=bool)
    is_target[sessions.offsets[:-1]] = False
    return sessions.items_at(slice(None))[is_target]


def _marked(items: Vocabulary, marked: Vocabulary | None) -> np.ndarray:
    """Return bool (n_items,), whether an item is one of the marked."""
    is_marked_N = np.zeros(items.n_items, dtype=bool)
    if marked is not None:
        item_idx = items.encode(marked.item_ids)
        is_marked_N[item_idx[item_idx >= 0]] = True
    return is_marked_N
