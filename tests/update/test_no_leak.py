"""A backtest without leaks: what models are given in each window, and that another backtest's work is not read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from update.literal import SMALL, log_of

import gru4rec.backtest.job
from gru4rec import GRU4Rec, Sessions
from gru4rec.backtest.job import Plan, backtest
from gru4rec.backtest.windows import cut_by_sessions
from gru4rec.config import hyper_parameters
from gru4rec.update.settings import UpdateSettings

PARTS = [[[0, 1], [1, 2, 3]], [[3, 0], [2, 9, 1]], [[9, 2], [8, 9, 0]], [[8, 1], [1, 0, 9]], [[2, 8], [0, 9]]]
"""The parts of a log, each session another one."""

SETTINGS = {name: value for name, value in SMALL.items() if name != "device"}


def ids_of(log: Sessions) -> list[list[Any]]:
    ids = log.items.ids_of(log.item_idx)
    return [ids[first:stop] for first, stop in zip(log.offsets[:-1], log.offsets[1:], strict=True)]


def plan(*, update_training: dict[str, Any] | None = None, **settings: Any) -> Plan:
    return Plan(
        hyper_parameters({**SETTINGS, **settings}), UpdateSettings(replay_share=9), update_training or {}, cutoffs=(2,)
    )


def carried_out(folder: Path, how: Plan | None = None, parts: list[list[list[int]]] = PARTS) -> dict[str, Any]:
    cut = cut_by_sessions(log_of([session for part in parts for session in part]), len(parts))
    return backtest(cut, how or plan(), folder, command="", tell=lambda message: None)


def test_models_are_given_what_was_known_by_then_and_measured_on_the_next_part(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained_on: list[list[list[int]]] = []
    updated_on: list[tuple[Any, ...]] = []
    measured_on: list[list[list[int]]] = []
    real_update, real_measure = gru4rec.backtest.job.update, gru4rec.backtest.job.measure

    class Watched(GRU4Rec):
        def fit(self, data: Any, **how: Any) -> GRU4Rec:
            if "recorder" not in how:  # an update trains with one
                trained_on.append(ids_of(data))
            return super().fit(data, **how)

    def update(gru: GRU4Rec, data: Sessions, *, replay: Sessions, **how: Any) -> Any:
        assert gru.items is not None
        updated_on.append((set(gru.items.item_ids.to_pylist()), ids_of(data), ids_of(replay)))
        return real_update(gru, data, replay=replay, **how)

    def measure(gru: GRU4Rec, following: Sessions, *more: Any, **how: Any) -> Any:
        measured_on.append(ids_of(following))
        return real_measure(gru, following, *more, **how)

    monkeypatch.setattr(gru4rec.backtest.job, "GRU4Rec", Watched)
    monkeypatch.setattr(gru4rec.backtest.job, "update", update)
    monkeypatch.setattr(gru4rec.backtest.job, "measure", measure)
    carried_out(tmp_path)
    so_far = [[session for part in PARTS[:n] for session in part] for n in range(5)]
    assert trained_on == [so_far[1], so_far[2], so_far[3], so_far[4]]
    assert updated_on == [
        ({0, 1, 2, 3}, PARTS[1], so_far[1]),
        ({0, 1, 2, 3, 9}, PARTS[2], so_far[2]),
        ({0, 1, 2, 3, 9, 8}, PARTS[3], so_far[3]),
    ]
    assert measured_on == [PARTS[1], *[PARTS[place] for place in (2, 3, 4) for _ in range(3)]]


def test_the_same_again_reads_all_and_anything_else_reads_nothing(tmp_path: Path) -> None:
    n_all = 1 + 3 * 3
    assert [carried_out(tmp_path)["n_found"] for _ in range(2)] == [0, n_all]
    other_ids = [[[7 if item == 8 else item for item in session] for session in part] for part in PARTS]
    for how, parts in (
        (plan(learning_rate=0.3), PARTS),
        (plan(update_training={"n_epochs": 3}), PARTS),
        (plan(), other_ids),
        (plan(), [part[::-1] for part in PARTS]),
    ):
        assert carried_out(tmp_path, how, parts)["n_found"] == 0
    assert carried_out(tmp_path)["n_found"] == n_all  # what others left there harms nothing


def test_other_cuts_of_the_same_log_read_nothing(tmp_path: Path) -> None:
    log = log_of([session for part in PARTS for session in part])
    for n_parts in (5, 4, 3):
        found = backtest(cut_by_sessions(log, n_parts), plan(), tmp_path, command="", tell=lambda message: None)
        assert found["n_found"] == 0
