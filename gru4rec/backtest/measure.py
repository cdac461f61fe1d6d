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
        known targets.

    Raises:
        DataError: The model knows nothing of the log.
    """
    known = following.with_vocabulary(_items_of(gru))
    found = evaluate(gru.scorer(), known, list_length=max(cutoffs))
    ranks = found.counts.ranks(ties, seed=gru.settings.draw_seed)
    assert found.lists_TK is not None
    is_new_N = _marked(known.items, new_items)
    is_new_T = is_new_N[_targets(known)]
    n_new_targets = int(_marked(following.items, new_items)[_targets(following)].sum())
    listed_new_TK = is_new_N[found.lists_TK]
    sums = {
        metric: {str(k): float(event_values(ranks, metric, k).sum()) for k in cutoffs} for metric in ("recall", "mrr")
    }
    return {
        "n_targets": following.n_targets,
        "n_known": found.n_targets,
        "all": _means(sums, following.n_targets),
        "known": _means(sums, found.n_targets),
        "new": {
            "n_targets": n_new_targets,
            "recall": {
                str(k): float((ranks[is_new_T] <= k).sum()) / n_new_targets if n_new_targets else None for k in cutoffs
            },
            "share_of_lists": {str(k): float(listed_new_TK[:, :k].any(axis=1).mean()) for k in cutoffs},
            "share_of_places": {str(k): float(listed_new_TK[:, :k].mean()) for k in cutoffs},
        },
    }


def _items_of(gru: GRU4Rec) -> Vocabulary:
    assert gru.items is not None
    return gru.items


def _means(sums: dict[str, dict[str, float]], n: int) -> dict[str, dict[str, float]]:
    return {metric: {k: total / n for k, total in by_k.items()} for metric, by_k in sums.items()}


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
