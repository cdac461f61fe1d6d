"""Parts of the doctor against arithmetic and slow loops."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from unit.doctor.planted import clean, in_time_order, split

from gru4rec.config import hyper_parameters
from gru4rec.data.events import load_events
from gru4rec.data.sessions import Sessions
from gru4rec.doctor.cost import check_cost, memory_bytes, n_weights
from gru4rec.doctor.examine import examine
from gru4rec.doctor.gaps import valley
from gru4rec.doctor.ordered import OrderedLog
from gru4rec.doctor.sequence import markov_hits
from gru4rec.errors import DataError
from gru4rec.model.network import GRU4RecModel


def test_ordered_log_is_in_the_order_of_training_and_knows_rows_and_ids() -> None:
    table = pa.table({"SessionId": ["b", "a", "b", "c", "a"], "ItemId": [5, 6, 7, 5, 5], "Time": [9, 4, 3, 4, 8]})
    log = OrderedLog.read(table)
    sessions = Sessions.from_log(load_events(table))
    assert log.item_E.tolist() == sessions.item_idx.tolist()
    assert log.offsets.tolist() == sessions.offsets.tolist()
    assert log.row_E.tolist() == [2, 0, 1, 4, 3]  # b from 3, then a and c from 4, by id
    assert log.time_E.tolist() == [3, 9, 4, 8, 4]
    assert [log.session_id(s) for s in range(3)] == ["b", "a", "c"]


def test_ordered_log_without_some_events_renumbers_its_sessions() -> None:
    table = pa.table({"SessionId": [1, 1, 2, 3, 3], "ItemId": [5, 6, 7, 5, 5], "Time": [1, 2, 3, 4, 8]})
    log = OrderedLog.read(table).only(np.array([True, False, False, True, True]))
    assert log.session_E.tolist() == [0, 1, 1]
    assert log.offsets.tolist() == [0, 1, 3]
    assert log.session_id(1) == 3


def test_ordered_log_needs_two_events_in_a_session() -> None:
    with pytest.raises(DataError, match="nothing to predict"):
        OrderedLog.read(pa.table({"SessionId": [1, 2], "ItemId": [5, 6], "Time": [1, 2]}))


@pytest.mark.parametrize("k", [1, 3, 20])
@pytest.mark.parametrize("seed", range(5))
def test_markov_hits_matches_a_slow_loop(k: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    n_items, n_seen = 40, 34
    pairs = np.minimum(rng.geometric(0.1, (300, 2)) - 1, n_seen - 1)
    rank = np.full(n_items, n_items)
    rank[:n_seen] = rng.permutation(n_seen)
    tests = rng.integers(0, n_items, (400, 2))
    followers: dict[int, Counter[int]] = {item: Counter() for item in range(n_items)}
    for before, after in pairs.tolist():
        followers[before][after] += 1
    expected = []
    for last, target in tests.tolist():
        seen = sorted(range(n_items), key=lambda item: (-followers[last][item], rank[item]))
        expected.append(target in [item for item in seen if rank[item] < n_items][:k])
    got = markov_hits(pairs[:, 0], pairs[:, 1], tests[:, 0], tests[:, 1], rank, k)
    assert got.tolist() == expected


def test_valley_lies_between_two_hills() -> None:
    edges = 10 ** np.arange(0, 6.05, 0.1)
    middle = np.sqrt(edges[1:] * edges[:-1])
    hills = [1_000 * np.exp(-((np.log10(middle / top) / 0.4) ** 2)) for top in (50, 86_400)]
    # equal hills at 50 s and a day: they cross where the logarithm is halfway, at sqrt(50 x 86,400) = 2,078 s
    assert valley(edges, np.rint(sum(hills)).astype(np.int64)) == pytest.approx(2_078, rel=0.4)


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"layers": [8, 4]},
        {"layers": [8, 4], "gru_variant": "reset_before"},
        {"layers": [6], "constrained_embedding": False},
        {"layers": [6, 5], "constrained_embedding": False},
        {"layers": [6, 5], "constrained_embedding": False, "embedding": 3, "gru_variant": "reset_before"},
        {"layers": [6, 5], "constrained_embedding": False, "embedding": "layersize"},
    ],
)
def test_n_weights_is_the_networks(settings: dict[str, Any]) -> None:
    checked = hyper_parameters(settings)
    network = GRU4RecModel(17, checked)
    assert n_weights(checked, 17) == sum(weight.numel() for weight in network.parameters())


def test_memory_counts_accumulators_momentum_and_the_schedule() -> None:
    sessions = OrderedLog.read(
        pa.table({"SessionId": [1, 1, 1, 2, 2], "ItemId": [5, 6, 7, 5, 6], "Time": [1, 2, 3, 4, 8]})
    )
    settings = hyper_parameters({"layers": [2], "batch_size": 2, "n_sample": 4, "n_epochs": 3})
    parts = memory_bytes(settings, sessions.sessions)
    # weights: 3 items x (2 + 1) and 3 x 2 x (2 + 2 + 2) = 45, each with an accumulator, 4 bytes
    assert parts["weights_and_optimiser"] == 45 * 2 * 4
    assert parts["schedule"] == 7 * 3
    assert parts["negatives"] == 4 * (1 * 3 * 4)  # 3 targets are one whole step of 2; 3 epochs; 4 ids of 4 bytes
    with_momentum = memory_bytes(hyper_parameters({"layers": [2], "momentum": 0.5}), sessions.sessions)
    assert with_momentum["weights_and_optimiser"] == 45 * 3 * 4


def test_memory_that_is_not_there_is_an_error_and_nothing_is_trained(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gru4rec.doctor.cost.available_bytes", lambda: 10**9)
    sessions = OrderedLog.read(pa.table(clean())).sessions
    settings = hyper_parameters({"layers": [100_000]})
    checked = check_cost(sessions, settings, timing=True, device="cpu", threads=1)
    assert [(f.name, f.severity) for f in checked.findings] == [("memory", "error")]
    assert "1.0 GB are free here" in checked.findings[0].message
    assert "events_per_s" not in checked.numbers


def test_timing_scales_a_real_run_up() -> None:
    sessions = OrderedLog.read(pa.table(clean())).sessions
    settings = hyper_parameters({"layers": [8], "n_sample": 16, "n_epochs": 7})
    numbers = check_cost(sessions, settings, timing=True, device="cpu", threads=1).numbers
    assert numbers["device"] == "cpu"
    assert numbers["measured_events"] > 0
    assert numbers["events_per_s"] == pytest.approx(numbers["measured_events"] / numbers["measured_s"])
    assert numbers["training_s"] == pytest.approx(7 * sessions.n_targets / numbers["events_per_s"])


def test_timing_that_diverges_is_an_error() -> None:
    sessions = OrderedLog.read(pa.table(clean())).sessions
    settings = hyper_parameters({"layers": [8], "n_sample": 16, "learning_rate": 1e30})
    checked = check_cost(sessions, settings, timing=True, device="cpu", threads=1)
    assert [(f.name, f.severity) for f in checked.findings] == [("diverges", "error")]


def test_examine_does_not_change_the_callers_table_and_repeats_itself() -> None:
    train, test = split(clean())
    before = {name: column.copy() for name, column in train.items()}
    first, again = (examine(pa.table(train), pa.table(test), timing=False).as_dict() for _ in range(2))
    for report in (first, again):
        report["numbers"]["cost"].pop("available_bytes")
    assert first == again
    assert all((train[name] == before[name]).all() for name in train)


def test_row_order_of_a_file_changes_no_numbers() -> None:
    rows = in_time_order(clean())
    order = np.random.default_rng(0).permutation(len(rows["Time"]))
    first, other = (
        examine(pa.table({name: column[which] for name, column in rows.items()}), timing=False).numbers
        for which in (slice(None), order)
    )
    for check in ("shape", "bots", "gaps", "duplicates", "clock"):
        assert first[check] == other[check], check
