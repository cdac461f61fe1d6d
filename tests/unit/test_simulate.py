"""The simulated shop: its probabilities are what is drawn, and its optimum is the optimum."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from gru4rec.data.simulate import DAY_S, START_S, Shop, ShopSettings, simulate_shop
from gru4rec.data.simulated_logs import optimal_metrics, shuffle_items, split_by_time, write_logs
from gru4rec.errors import ConfigError, DataError

SMALL = {"n_items": 60, "n_categories": 6, "n_sessions": 600, "days": 10, "repeat_frac": 0.2, "sequel_frac": 0.3}


@pytest.fixture(scope="module")
def shop() -> Shop:
    return simulate_shop(ShopSettings(**SMALL, seed=3))


def _histories(shop: Shop) -> list[list[int]]:
    a, b, c, d = (int(i) for i in shop.item_catalogue[[0, 1, 30, 59]])
    return [[], [a], [a, b], [b, a, b], [a, b, c, a, d, a, b], [c, d, c, d]]


def _slow_distribution(shop: Shop, history: list[int], time: int) -> np.ndarray:
    """Write the four kinds of click down from the description, item by item."""
    rules, s = shop.rules, shop.rules.settings
    day = min(max((time - START_S) // DAY_S, 0), s.days - 1)
    popularity = rules.popularity_DN[day].tolist()
    if not history:
        return np.array(popularity)
    index = [shop.item_catalogue.tolist().index(i) for i in history]
    last, back = index[-1], [i for i in index[:-1] if i != index[-1]]
    others = [i for i in range(s.n_items) if i != last]
    mates = [i for i in others if rules.category_N[i] == rules.category_N[last]]
    p = [0.0] * s.n_items
    for i in others:
        p[i] += (
            (1 - s.sequel_frac - s.category_frac - s.repeat_frac) * popularity[i] / sum(popularity[j] for j in others)
        )
    for i in mates:
        p[i] += s.category_frac * popularity[i] / sum(popularity[j] for j in mates)
    harmonic = sum(1 / (q + 1) for q in range(s.n_sequels))
    for q, i in enumerate(rules.sequels_NQ[last]):
        p[i] += s.sequel_frac / (q + 1) / harmonic
    for i in back:
        p[i] += s.repeat_frac / len(back)
    return np.array(p) / (1.0 if back else 1 - s.repeat_frac)


# ---- the distribution and the draws


def test_distribution_equal_items_matches_arithmetic() -> None:
    settings = ShopSettings(
        n_items=4, n_categories=2, n_sessions=1, n_sequels=1, zipf_exponent=0, drift=0,
        sequel_frac=0.4, category_frac=0.3, repeat_frac=0.2,
    )  # fmt: skip
    shop = simulate_shop(settings)
    a, mate = (int(i) for i in shop.item_catalogue[:2])
    sequel = int(shop.rules.sequels_NQ[0, 0])
    other = 5 - sequel
    assert {sequel, other} == {2, 3}
    # One click: nothing to go back to, so 0.4, 0.3 and 0.1 are divided by 0.8; wandering has three items to go to.
    p = shop.next_item_distribution([a], START_S)
    assert p[[0, 1, sequel, other]] == pytest.approx([0, 0.3 / 0.8 + 1 / 24, 0.4 / 0.8 + 1 / 24, 1 / 24])
    # mate, a: the one way back is to mate.
    p = shop.next_item_distribution([mate, a], START_S)
    assert p[[0, 1, sequel, other]] == pytest.approx([0, 0.5 + 1 / 30, 0.4 + 1 / 30, 1 / 30])
    assert shop.next_item_distribution([], START_S) == pytest.approx([0.25] * 4)


@pytest.mark.parametrize("which", range(6))
@pytest.mark.parametrize("day", [-1, 0, 5, 9, 30])
def test_distribution_any_history_matches_slow_loop(shop: Shop, which: int, day: int) -> None:
    history, time = _histories(shop)[which], START_S + day * DAY_S + 7
    p = shop.next_item_distribution(history, time)
    assert p.dtype == np.float64
    assert p.sum() == pytest.approx(1.0, abs=1e-12)
    assert p == pytest.approx(_slow_distribution(shop, history, time), abs=1e-14)
    clicked_last = shop.item_catalogue == (history[-1] if history else -1)
    assert (p[clicked_last] == 0).all()
    assert (p[~clicked_last] > 0).all()


@pytest.mark.parametrize("which", range(6))
def test_draw_next_items_frequencies_match_distribution(shop: Shop, which: int) -> None:
    history, time, n_draws = _histories(shop)[which], START_S + 9 * DAY_S, 200_000
    drawn = shop.draw_next_items(history, time, n_draws=n_draws, seed=which)
    expected = shop.next_item_distribution(history, time) * n_draws
    observed = np.array([(drawn == i).sum() for i in shop.item_catalogue])
    assert observed.sum() == n_draws
    assert (observed[expected == 0] == 0).all()
    cells = expected > 0
    assert expected[cells].min() > 5  # else chi-squared does not apply
    chi_squared = ((observed - expected)[cells] ** 2 / expected[cells]).sum()
    dof = cells.sum() - 1
    assert abs(chi_squared - dof) < 4 * np.sqrt(2 * dof)


def test_draw_next_items_last_item_dominates_never_repeats_it() -> None:
    # The likeliest item of a category of two has nearly all of its mass; stepping over it must still work.
    shop = simulate_shop(ShopSettings(n_items=4, n_categories=2, zipf_exponent=3, drift=10, n_sessions=5))
    for item in shop.item_catalogue.tolist():
        assert item not in shop.draw_next_items([item], START_S, n_draws=20_000, seed=1)


@pytest.mark.parametrize("chance", [0.0, 0.5, np.nextafter(1.0, 0.0), "at the last item"])
def test_draw_popular_at_the_edges_stays_in_range_off_the_last_item(chance: float | str) -> None:
    rules = simulate_shop(ShopSettings(n_sessions=1)).rules  # 1,500 items, 28 days: enough for rounding to go both ways
    last, day = (grid.ravel() for grid in np.meshgrid(np.arange(1_500), np.arange(28)))
    first, end = (rules.category_start[rules.category_N[last] + edge] for edge in (0, 1))
    for low, high in ((first, end), (np.zeros_like(last), np.full_like(last, 1_500))):
        below, at, above = (rules._upto_DN1[day, edge] for edge in (low, last, high))
        if isinstance(chance, str):
            aim = ((at - below) / (above - below - rules.popularity_DN[day, last])).clip(0, np.nextafter(1.0, 0.0))
        else:
            aim = np.full(last.shape, chance)
        item = rules._draw_popular(aim, day, last, low, high)
        assert (item != last).all()
        assert ((low <= item) & (item < high)).all()


def test_distribution_unknown_item_raises(shop: Shop) -> None:
    with pytest.raises(DataError, match=r"item 5 is not in the simulated shop's catalogue \(1 such"):
        shop.next_item_distribution([int(shop.item_catalogue[0]), 5], START_S)


@pytest.mark.parametrize("drift", [0.0, 2.0])
def test_drift_first_to_last_day_changes_weights_as_configured(drift: float) -> None:
    shop = simulate_shop(ShopSettings(**SMALL, seed=5, drift=drift, zipf_exponent=0.5))
    rules = shop.rules
    ratio = rules.popularity_DN[-1] / rules.popularity_DN[0]
    # Popularities are weights over their sum, so log ratios are drift * trend up to one constant.
    assert np.log(ratio / ratio[0]) == pytest.approx(drift * (rules.trend_N - rules.trend_N[0]), abs=1e-12)
    day_by_day = np.diff(np.log(rules.popularity_DN / rules.popularity_DN[:, :1]), axis=0)
    assert day_by_day == pytest.approx(np.broadcast_to(day_by_day[:1], day_by_day.shape), abs=1e-12)


def test_drift_shows_in_the_log() -> None:
    shop = simulate_shop(ShopSettings(**SMALL | {"n_sessions": 8_000}, seed=5, drift=3.0))
    rising = shop.rules.trend_N > 0.3
    day = (shop.time - START_S) // DAY_S
    is_rising = rising[shop.rules.index_of(shop.item_id)]
    early, late = is_rising[day <= 1].mean(), is_rising[day >= 8].mean()
    assert late > 1.5 * early


# ---- the log


def test_log_looks_like_a_shops(shop: Shop) -> None:
    assert all(c.dtype == np.int64 and c.shape == shop.time.shape for c in (shop.session_id, shop.item_id, shop.time))
    assert (np.diff(shop.time) >= 0).all()
    assert shop.time[0] >= 1_767_225_600  # 2026-01-01 00:00:00 UTC
    ids, n_clicks = np.unique(shop.session_id, return_counts=True)
    assert len(ids) == 600
    assert n_clicks.min() == 2
    assert n_clicks.mean() == pytest.approx(6.0, abs=5 * 4.5 / np.sqrt(600))  # geometric part: sd = sqrt(4 * 5)
    n_overlaps = 0
    for session in ids:
        at = np.flatnonzero(shop.session_id == session)
        assert (np.diff(shop.time[at]) > 0).all()
        assert (np.diff(shop.item_id[at]) != 0).all()
        n_overlaps += len(at) != at[-1] - at[0] + 1
    assert n_overlaps > 100
    assert len(np.unique(shop.item_catalogue)) == 60
    assert np.ptp(shop.item_catalogue) > 60 * 100
    assert np.isin(shop.item_id, shop.item_catalogue).all()


def test_same_seed_same_bytes_other_seed_differs() -> None:
    first, again, other = (simulate_shop(ShopSettings(**SMALL, seed=seed)) for seed in (8, 8, 9))
    for name in ("session_id", "item_id", "time", "item_catalogue"):
        assert getattr(first, name).tobytes() == getattr(again, name).tobytes()
        assert getattr(first, name).tobytes() != getattr(other, name).tobytes()


def test_import_is_numpy_only() -> None:
    heavy = "('torch', 'pandas', 'pyarrow')"
    code = f"import sys, gru4rec.data.simulated_logs; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (
            {"n_items": 3},
            "n_items=3 in ShopSettings is out of range. Give a whole number from 4 to 1000000; the nearest is 4",
        ),
        ({"n_sessions": 0}, "n_sessions=0 in ShopSettings is out of range"),
        ({"n_items": 50, "n_categories": 26}, "n_categories=26 in ShopSettings is too many for n_items=50"),
        ({"days": 2.5}, "days=2.5 in ShopSettings is not a whole number"),
        ({"days": True}, "days=True in ShopSettings is not a whole number"),
        ({"seed": -1}, "seed=-1 in ShopSettings is out of range"),
        ({"drift": float("nan")}, "drift=nan in ShopSettings is out of range"),
        ({"zipf_exponent": "steep"}, "zipf_exponent='steep' in ShopSettings is not a number"),
        ({"zipf_exponent": 9}, "the nearest is 3"),
        ({"mean_session_length": 1.5}, "mean_session_length=1.5 in ShopSettings is out of range"),
        ({"repeat_frac": -0.1}, "repeat_frac=-0.1 in ShopSettings is out of range"),
        ({"sequel_frac": 0.5, "category_frac": 0.3, "repeat_frac": 0.2}, "leave nothing for wandering"),
    ],
)
def test_settings_impossible_value_raises(wrong: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(message)):
        ShopSettings(**wrong)  # type: ignore[arg-type]


def test_settings_every_field_changes_the_log() -> None:
    base = {"n_items": 60, "n_categories": 6, "n_sessions": 300, "days": 10}
    changes = {
        "n_items": 61, "n_categories": 7, "n_sessions": 301, "days": 11, "seed": 1, "mean_session_length": 4.0,
        "max_session_length": 5, "zipf_exponent": 0.2, "drift": 3.0, "n_sequels": 1, "sequel_frac": 0.3,
        "category_frac": 0.05, "repeat_frac": 0.2,
    }  # fmt: skip
    assert set(changes) == set(ShopSettings.__dataclass_fields__)
    plain = simulate_shop(ShopSettings(**base))
    for name, value in changes.items():
        changed = simulate_shop(ShopSettings(**base | {name: value}))
        same = (getattr(plain, c).tobytes() == getattr(changed, c).tobytes() for c in ("session_id", "item_id", "time"))
        assert not all(same), name


# ---- the optimum


def _slow_optimum(shop: Shop, log: list[list[int]], vocabulary: list[int], k: int) -> tuple[float, float, float, float]:
    histories: dict[int, list[int]] = {}
    sums, n_targets = np.zeros(4), 0
    for session, item, time in sorted(log, key=lambda row: (row[0], row[2])):
        history = histories.setdefault(session, [])
        if history:
            p = dict(
                zip(shop.item_catalogue.tolist(), shop.next_item_distribution(history, time).tolist(), strict=True)
            )
            total = sum(p[i] for i in vocabulary)
            best = sorted(vocabulary, key=lambda i: -p[i])[:k]
            n_targets += 1
            for rank, i in enumerate(best, start=1):
                hit = float(i == item)
                sums += p[i] / total, p[i] / total / rank, hit, hit / rank
        history.append(item)
    return tuple(sums / n_targets)  # type: ignore[return-value]


@pytest.mark.parametrize("chunk_cells", [2_000_000, 100])
def test_optimal_metrics_matches_slow_loop(shop: Shop, monkeypatch: pytest.MonkeyPatch, chunk_cells: int) -> None:
    monkeypatch.setattr("gru4rec.data.simulated_logs.CHUNK_CELLS", chunk_cells)
    vocabulary = shop.item_catalogue[5:].tolist()
    known = np.isin(shop.item_id, vocabulary) & (shop.session_id < np.unique(shop.session_id)[80])
    columns = [c[known] for c in (shop.session_id, shop.item_id, shop.time)]
    cutoff = (1, 7, 200)
    got = optimal_metrics(shop, *columns, train_item_ids=[*vocabulary, vocabulary[3]], cutoff=cutoff)
    for k in cutoff:
        expected = _slow_optimum(shop, np.stack(columns, axis=1).tolist(), vocabulary, k)
        names = ("expected_recall", "expected_mrr", "realised_recall", "realised_mrr")
        assert [got[name][k] for name in names] == pytest.approx(expected, abs=1e-12), k
    assert got["expected_recall"][200] == pytest.approx(1.0)  # every item of the vocabulary is in the list


def test_optimal_metrics_large_catalogue_matches_slow_loop() -> None:
    # numpy's partition leaves only large arrays unsorted, so a forgotten sort would not show on a tiny shop.
    shop = simulate_shop(ShopSettings(n_items=4_000, n_sessions=15, repeat_frac=0.2))
    log = (shop.session_id, shop.item_id, shop.time)
    got = optimal_metrics(shop, *log, train_item_ids=shop.item_catalogue, cutoff=(700,))
    expected = _slow_optimum(shop, np.stack(log, axis=1).tolist(), shop.item_catalogue.tolist(), 700)
    assert [values[700] for values in got.values()] == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("seed", range(4))
def test_optimal_metrics_realised_is_near_expected_and_above_other_rankings(seed: int) -> None:
    shop = simulate_shop(ShopSettings(n_items=300, n_categories=15, n_sessions=4_000, seed=seed, drift=2.0))
    log = (shop.session_id, shop.item_id, shop.time)
    best = optimal_metrics(shop, *log, train_item_ids=shop.item_catalogue, cutoff=(5,))
    recall, n_targets = best["expected_recall"][5], len(shop.time) - 4_000
    # A hit has probability p given its history; the variance of their mean is at most r (1 - r) / n. MRR likewise.
    error = np.sqrt(recall * (1 - recall) / n_targets)
    assert abs(best["realised_recall"][5] - recall) < 4 * error
    assert abs(best["realised_mrr"][5] - best["expected_mrr"][5]) < 4 * error

    order = np.lexsort((shop.time, shop.session_id))
    session, item = shop.session_id[order], shop.rules.index_of(shop.item_id)[order]
    pairs = np.flatnonzero(session[1:] == session[:-1])
    last, target, rules, rng = item[pairs], item[pairs + 1], shop.rules, np.random.default_rng(0)
    counts = np.zeros((300, 300))
    np.add.at(counts, (last, target), 1.0)
    exact = rules.probabilities(last[:, None], rules.day_of(shop.time[order][pairs + 1]))
    rivals = {
        "popularity": np.bincount(item, minlength=300)[None, :].repeat(len(pairs), axis=0),
        "exact, but only of the last click": exact,
        "exact of the last click, wrong day": rules.probabilities(last[:, None], np.zeros(len(last), dtype=np.int64)),
        "exact of the last click, noisy": exact * rng.uniform(0.5, 2.0, exact.shape),
    }
    for name, scores in rivals.items():
        rank = 1 + (scores > scores[np.arange(len(pairs)), target][:, None]).sum(axis=1)
        assert (rank <= 5).mean() < best["realised_recall"][5], name
        assert np.where(rank <= 5, 1 / rank, 0).mean() < best["realised_mrr"][5], name


def test_optimal_metrics_shuffled_log_realises_far_less(shop: Shop) -> None:
    shuffled = shuffle_items(shop.item_id, seed=1)
    log = optimal_metrics(
        shop, shop.session_id, shop.item_id, shop.time, train_item_ids=shop.item_catalogue, cutoff=(5,)
    )
    noise = optimal_metrics(shop, shop.session_id, shuffled, shop.time, train_item_ids=shop.item_catalogue, cutoff=(5,))
    assert noise["realised_recall"][5] < 0.4 * log["realised_recall"][5]


def test_optimal_metrics_misuse_raises(shop: Shop) -> None:
    log = (shop.session_id, shop.item_id, shop.time)
    with pytest.raises(DataError, match=r"events given to optimal_metrics have an item that is not in train_item_ids"):
        optimal_metrics(shop, *log, train_item_ids=shop.item_catalogue[:30])
    with pytest.raises(ConfigError, match=r"cutoff=\(0,\) in optimal_metrics"):
        optimal_metrics(shop, *log, train_item_ids=shop.item_catalogue, cutoff=(0,))
    with pytest.raises(DataError, match="no session of the log given to optimal_metrics has two events"):
        optimal_metrics(shop, *(c[:1] for c in log), train_item_ids=shop.item_catalogue)


def test_shuffle_items_keeps_counts_and_the_callers_array(shop: Shop) -> None:
    before = shop.item_id.copy()
    shuffled = shuffle_items(shop.item_id, seed=4)
    assert (np.sort(shuffled) == np.sort(before)).all()
    assert (shop.item_id == before).all()
    assert (shuffled != before).mean() > 0.9
    assert (shuffled == shuffle_items(before, seed=4)).all()
    assert (shuffled != shuffle_items(before, seed=5)).any()


# ---- split and files


def test_split_by_time_hand_made_log_drops_and_counts() -> None:
    rows = [  # session, item, day; the last day is 10, so with test_days=1 the cuts are at 9 and 8
        (1, 11, 0.0), (1, 12, 0.1),
        (2, 11, 7.99), (2, 12, 8.01),  # in train whole; before 8 only one event is left
        (3, 11, 8.5), (3, 12, 8.6), (3, 13, 8.7),  # 13 is unknown to train_tr
        (4, 12, 8.9), (4, 11, 9.1),  # before 9 only one event is left, and it began too early for test
        (5, 11, 9.5), (5, 77, 9.6), (5, 13, 9.7),  # 77 is unknown to train
        (6, 77, 9.6), (6, 12, 9.7),  # and here leaves a single event
        (7, 12, 9.0), (7, 11, 10.0),  # begins at the cut: test
    ]  # fmt: skip
    order = np.random.default_rng(0).permutation(len(rows))
    session, item, day = (np.array(column)[order] for column in zip(*rows, strict=True))
    split = split_by_time(session, item, np.rint(day * DAY_S), test_days=1)

    def events(name: str) -> list[tuple[int, int]]:
        part = getattr(split, name)
        assert (np.diff(part.time) >= 0).all()
        return list(zip(part.session_id.tolist(), part.item_id.tolist(), strict=True))

    assert events("train") == [(1, 11), (1, 12), (2, 11), (2, 12), (3, 11), (3, 12), (3, 13)]
    assert events("test") == [(7, 12), (5, 11), (5, 13), (7, 11)]
    assert events("train_tr") == [(1, 11), (1, 12)]
    assert events("train_valid") == [(3, 11), (3, 12)]
    assert split.n_unknown == {"test": 2, "train_valid": 1}
    assert split.n_short == {"train": 1, "test": 1, "train_tr": 1, "train_valid": 0}


def test_split_by_time_simulated_log_has_no_leak(shop: Shop) -> None:
    split = split_by_time(shop.session_id, shop.item_id, shop.time, test_days=1.5)
    for early, late, n_periods in ((split.train, split.test, 1), (split.train_tr, split.train_valid, 2)):
        cut = shop.time.max() - n_periods * 1.5 * DAY_S
        assert early.time.max() < cut <= late.time.min()
        assert not np.isin(early.session_id, late.session_id).any()
        assert np.isin(late.item_id, early.item_id).all()
        for part in (early, late):
            assert np.unique(part.session_id, return_counts=True)[1].min() >= 2


@pytest.mark.parametrize("test_days", [0, -1, 5.5, 40])
def test_split_by_time_no_room_raises(shop: Shop, test_days: float) -> None:
    with pytest.raises(ConfigError, match=rf"test_days={test_days} in split_by_time leaves no events for .*9\.\d days"):
        split_by_time(shop.session_id, shop.item_id, shop.time, test_days=test_days)


def test_write_logs_round_trip(shop: Shop, tmp_path: Path) -> None:
    folder = tmp_path / "new" / "shop"
    paths = write_logs(shop, folder, test_days=1)
    split = split_by_time(shop.session_id, shop.item_id, shop.time, test_days=1)
    assert sorted(p.name for p in folder.iterdir()) == ["test.tsv", "train.tsv", "train_tr.tsv", "train_valid.tsv"]
    for name, path in paths.items():
        assert path == folder / f"{name}.tsv"
        assert path.read_bytes().startswith(b"SessionId\tItemId\tTime\n")
        assert path.read_bytes().endswith(b"\n")
        table = np.loadtxt(path, dtype=np.int64, delimiter="\t", skiprows=1)
        assert (table == np.stack(getattr(split, name), axis=1)).all()
    before = paths["train"].read_bytes()
    assert write_logs(shop, folder, test_days=1)["train"].read_bytes() == before


def test_write_logs_folder_is_a_file_raises(shop: Shop, tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("")
    with pytest.raises(DataError, match=r"cannot write .*train\.tsv: .*Choose a folder that can be written to"):
        write_logs(shop, tmp_path / "taken", test_days=1)


def test_write_logs_interrupted_keeps_the_old_file(shop: Shop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "train.tsv").write_text("old")

    def full(source: object, target: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(DataError, match=r"train\.tsv: No space left on device"):
        write_logs(shop, tmp_path, test_days=1)
    assert [(p.name, p.read_text()) for p in tmp_path.iterdir()] == [("train.tsv", "old")]
