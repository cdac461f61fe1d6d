"""Sanity checks: signs that a comparison says something else than it seems to.

Each returns findings, a dict with severity, title, detail and the model's name or None.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from gru4rec.baselines.item_to_item import association_rules
from gru4rec.baselines.settings import AssociationSettings
from gru4rec.compare.plan_file import EvaluationPlan
from gru4rec.compare.slices import targets_of
from gru4rec.data.sessions import Sessions
from gru4rec.evaluate.evaluator import Evaluation, Scorer, evaluate

Finding = dict[str, Any]

MIN_UNSEEN = 20
"""Targets never seen beside the click before them that are needed to judge by."""
MAX_UNSEEN_SHARE = 0.6
"""Of a model's own recall on other targets; honest models reach a fraction of it on what they could not learn.
What lists drawn by chance would reach is taken off both first."""
N_DEVIATIONS = 3
"""By which chance alone may be lucky on targets that were never seen."""
TOO_GOOD = 0.9
"""Recall@1 that no log of people's clicks has been seen to allow."""
_N_ALTERED = 100


def finding(severity: str, title: str, detail: str, model: str | None = None) -> Finding:
    """Put a finding together; severity is error, warning, note or good."""
    return {"severity": severity, "title": title, "detail": detail, "model": model}


def check_logs(train: Sessions, test: Sessions) -> Iterator[Finding]:
    """Look for test sessions that training holds, and for test times before training's end."""
    known = {row.tobytes() for row in _long_sessions(train)}
    long = _long_sessions(test)
    n_same = sum(row.tobytes() in known for row in long)
    if long and n_same > 0.2 * len(long):
        yield finding(
            "error",
            "Test sessions stand in the training log",
            f"{n_same:,} of {len(long):,} test sessions of four events or more are in the training log click by click: "
            "models are tested on what they learned. Split by time, so that no session is in both.",
        )
    else:
        yield finding(
            "good",
            "Training and test share no sessions worth mentioning",
            f"{n_same:,} of {len(long):,} test sessions of four events or more are in the training log click by click.",
        )
    early = int(np.count_nonzero(test.start_time < train.start_time[-1]))
    if early > 0.05 * test.n_sessions:
        yield finding(
            "warning",
            "The test log does not come after the training log",
            f"{early:,} of {test.n_sessions:,} test sessions begin before the last training session does: models know "
            "the future of what they are tested on.",
        )
    else:
        yield finding("good", "The test log comes after the training log", f"{early:,} test sessions begin earlier.")


def _long_sessions(sessions: Sessions) -> list[np.ndarray]:
    offsets = sessions.offsets
    return [sessions.item_idx[offsets[place] : offsets[place + 1]] for place in np.flatnonzero(sessions.lengths >= 4)]


def unseen_targets(train: Sessions, test: Sessions) -> np.ndarray:
    """Return bool (T,): whether a target never stood in a training session with any click of its session so far."""
    matrix = association_rules(train, AssociationSettings.model_validate({})).matrix
    n_items = test.items.n_items
    rows = np.repeat(np.arange(n_items, dtype=np.int64), np.diff(matrix.row_offsets))
    known = np.append(rows * n_items + matrix.item_idx, np.iinfo(np.int64).max)  # above all keys, so one is found
    position, _, target, session = targets_of(test)
    unseen = np.ones(len(target), dtype=bool)
    for back in range(1, int(position.max(initial=0)) + 1):
        reaches = np.flatnonzero(position >= back)
        clicked = test.item_idx[test.offsets[session[reaches]] + position[reaches] - back].astype(np.int64)
        keys = clicked * n_items + target[reaches]
        is_known = known[np.searchsorted(known, keys)] == keys
        unseen[reaches[is_known | (clicked == target[reaches])]] = False
    return unseen


def check_model(
    name: str, scorer: Scorer | None, evaluation: Evaluation, unseen_T: np.ndarray, k: int, plan: EvaluationPlan
) -> Iterator[Finding]:
    """Look for signs that a model knows the targets.

    Args:
        name: Of the model.
        scorer: The model, in the test log's item indices; None where it has others.
        evaluation: On the test log.
        unseen_T: From :func:`unseen_targets`.
        k: List length.
        plan: How ties are broken.
    """
    hits_T = evaluation.counts.ranks(plan.ties, seed=plan.seed) <= k
    first = float(np.mean(evaluation.counts.ranks("conservative") <= 1))
    if first > TOO_GOOD:
        yield finding(
            "error",
            f"{name} is too good to be true",
            f"It puts {first:.1%} of the targets first. People's clicks are not that predictable: it may have been "
            "trained on the test log.",
            name,
        )
    n_unseen, on_unseen = int(unseen_T.sum()), float(hits_T[unseen_T].mean()) if unseen_T.any() else 0.0
    on_others = float(hits_T[~unseen_T].mean()) if not unseen_T.all() else 0.0
    chance = min(k / evaluation.sessions.items.n_items, 1.0)
    luck = N_DEVIATIONS * math.sqrt(chance * (1 - chance) / max(n_unseen, 1))
    honest = chance + luck + MAX_UNSEEN_SHARE * max(on_others - chance, 0.2)
    if n_unseen >= MIN_UNSEEN and on_unseen > honest:
        yield finding(
            "error",
            f"{name} knows targets that it cannot have learned",
            f"Recall@{k} is {on_unseen:.3f} on the {n_unseen:,} targets that never stood in a training session with "
            f"any click before them, and {on_others:.3f} on the others. It may have seen the test log.",
            name,
        )
    if scorer is not None and not _is_blind_to_the_future(scorer, evaluation):
        yield finding(
            "error",
            f"{name} looks ahead",
            "Its lists change when only the clicks after them are exchanged: it reads what it has to predict.",
            name,
        )


def _is_blind_to_the_future(scorer: Scorer, evaluation: Evaluation) -> bool:
    """Exchange the last click of some sessions, read them in another order, and compare the lists before it."""
    test, lists_TK = evaluation.sessions, evaluation.lists_TK
    assert lists_TK is not None
    chosen = np.flatnonzero(test.lengths >= 2)[:: max(1, np.count_nonzero(test.lengths >= 2) // _N_ALTERED)][::-1]
    lengths = test.lengths[chosen]
    offsets = np.r_[0, np.cumsum(lengths)]
    places = np.concatenate([np.arange(test.offsets[one], test.offsets[one + 1]) for one in chosen])
    item_idx = np.array(test.item_idx[places])
    item_idx[offsets[1:] - 1] = (item_idx[offsets[1:] - 1] + 1) % test.items.n_items
    altered = replace(test, item_idx=item_idx, offsets=offsets, start_time=test.start_time[chosen], item_support=None)
    again = evaluate(scorer, altered, list_length=lists_TK.shape[1]).lists_TK
    assert again is not None
    is_first = np.zeros(test.n_events, dtype=bool)
    is_first[test.offsets[:-1]] = True
    before = lists_TK[(np.cumsum(~is_first) - 1)[places][~is_first[places]]]
    return bool(np.array_equal(again, before))


def check_ties(name: str, ties: dict[str, Any], k: int) -> Iterator[Finding]:
    """Warn where a model's figures depend on how equal scores are ranked."""
    values = [mode["recall"][str(k)] for mode in ties["modes"].values()]
    if max(values) - min(values) > 0.01 * max(max(values), 1e-9):
        yield finding(
            "warning",
            f"{name} has many equal scores",
            f"Recall@{k} is {min(values):.4f} to {max(values):.4f}, by how ties are broken; see the tie report.",
            name,
        )


def check_order(models: Sequence[dict[str, Any]], primary: tuple[str, int]) -> Iterator[Finding]:
    """Warn of models that popularity beats."""
    metric, k = primary
    done = [model for model in models if model["error"] is None]
    floor = [model for model in done if model["kind"] == "pop"]
    for model in done:
        value = model["metrics"][metric][str(k)]["value"]
        if floor and model["kind"] not in ("pop", "random") and value < floor[0]["metrics"][metric][str(k)]["value"]:
            yield finding(
                "warning",
                f"{model['name']} is below popularity",
                f"{metric}@{k} is {value:.4f}: it learned nothing from sessions, or its settings are wrong.",
                model["name"],
            )
