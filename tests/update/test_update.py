"""An update through the library: what grows, what stays to the bit, what is trained on, what is carried."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from update.literal import NEW, OLD, SMALL, log_of, trained

import gru4rec.update.job
from gru4rec import GRU4Rec
from gru4rec.config import hyper_parameters
from gru4rec.errors import ConfigError, DataError, DivergedError
from gru4rec.update.growth import grown_state
from gru4rec.update.job import Updated, update
from gru4rec.update.settings import UpdateSettings, training_settings

MODES: list[dict[str, Any]] = [
    {},
    {"loss": "bpr-max"},
    {"constrained_embedding": False, "embedding": 3},
    {"constrained_embedding": False},
    {"layers": [5, 6], "gru_variant": "reset_before"},
    {"n_sample": "all"},
]
"""Both losses, all input modes, two layers, no sampling."""
MODE_NAMES = ["shared", "bpr-max", "separate", "none", "two layers", "all items"]


def updated(gru: GRU4Rec, lists: list[list[int]] = NEW, **how: Any) -> Updated:
    return update(
        gru, log_of(lists, "new.tsv"), **{"on_epoch": lambda report: None, "tell": lambda message: None, **how}
    )


def bits(gru: GRU4Rec) -> dict[str, bytes]:
    bundle = gru.bundle()
    assert bundle.training_state is not None
    return {name: array.tobytes() for name, array in {**bundle.weights, **bundle.training_state}.items()}


@pytest.mark.parametrize("settings", MODES, ids=MODE_NAMES)
def test_new_items_are_known_afterwards_and_the_old_model_is_as_it_was(settings: dict) -> None:
    gru = trained(**settings)
    before = bits(gru), gru.support.tolist()
    result = updated(gru)
    assert (bits(gru), gru.support.tolist()) == before
    after = result.gru
    assert after.items.ids_of(range(7)) == [0, 1, 2, 3, 9, 8, 7]
    assert after.support.tolist() == [*(gru.support + np.array([1, 2, 1, 2])), 5, 2, 2]
    assert (result.n_items_before, result.n_new_items, result.n_alone) == (4, 3, 2)
    assert (result.n_sessions, result.n_replayed, result.state) == (5, 0, "carried")  # [8] gives no prediction
    assert after.settings == gru.settings  # an update's own settings are its own
    assert after.n_epochs_done == gru.n_epochs_done + 2
    assert set(after.recommend([0], k=7).item_ids) == {0, 1, 2, 3, 9, 8, 7}
    assert {name: weight.shape for name, weight in after.bundle().weights.items()} == {
        name: weight.shape
        for name, weight in GRU4Rec(**{**SMALL, **settings}).fit(log_of(OLD + NEW)).bundle().weights.items()
    }


@pytest.mark.parametrize("settings", MODES, ids=MODE_NAMES)
def test_same_seed_same_bits_and_another_seed_others(settings: dict) -> None:
    gru = trained(**settings, dropout_p_hidden=0.2)
    one, again, other = (
        updated(gru, replay=log_of(OLD), settings=UpdateSettings(replay_share=0.4), seed=seed).gru for seed in (3, 3, 4)
    )
    assert bits(one) == bits(again)
    assert bits(one) != bits(other)


def test_rows_that_no_step_touches_keep_their_bits() -> None:
    gru = trained(n_sample=0, batch_size=2)
    new = [[1, 9], [9, 1], [1, 9, 1]]  # 0, 2, 3 are neither clicked nor, without samples, negatives
    result = updated(gru, new)
    before, after = gru.bundle(), result.gru.bundle()
    assert before.training_state is not None
    assert after.training_state is not None
    for name in ("Wy.weight", "By.weight"):
        pairs = [(before.weights[name], after.weights[name])]
        pairs += [
            (before.training_state[kind + name], after.training_state[kind + name])
            for kind in ("accumulator.", "velocity.")
        ]
        for old_rows, new_rows in pairs:
            np.testing.assert_array_equal(new_rows[[0, 2, 3]], old_rows[[0, 2, 3]])
            assert np.all(new_rows[1] != old_rows[1])


def test_first_step_starts_from_the_carried_state_and_grown_rows() -> None:
    """A learning rate that moves nothing leaves the weights that training began with."""
    gru = trained()
    after = updated(gru, learning_rate=1e-30).gru.bundle()
    weights = gru.bundle().weights
    for name in ("G.0.weight_ih", "G.0.weight_hh"):
        np.testing.assert_allclose(after.weights[name], weights[name], rtol=0, atol=0.2)
    known = weights["Wy.weight"].astype(np.float64)
    velocity_free = updated(gru, learning_rate=1e-30, momentum=0.0).gru.bundle().weights["Wy.weight"]
    np.testing.assert_array_equal(velocity_free[:4], weights["Wy.weight"])
    np.testing.assert_allclose(velocity_free[4], known.mean(axis=0), rtol=1e-6)  # 9 stands beside 0, 1, 2, 3
    support = gru.support / gru.support.sum()
    np.testing.assert_allclose(velocity_free[5], support @ known, rtol=1e-6)  # 8 stands beside 9 alone


def test_accumulators_go_on_from_what_the_model_carries() -> None:
    gru = trained(momentum=0.0)
    state = gru.training_state
    assert state is not None
    after = updated(gru, learning_rate=1e-30).gru.training_state
    bare = trained(momentum=0.0)
    bare.training_state = {name: np.zeros_like(array) for name, array in state.items()}
    from_zero = updated(bare, learning_rate=1e-30).gru.training_state
    assert after is not None
    assert from_zero is not None
    for name in ("accumulator.G.0.weight_hh", "accumulator.Wy.weight"):  # no weight moves: the same gradients add up
        np.testing.assert_allclose(after[name][:4], state[name][:4] + from_zero[name][:4], rtol=1e-4, atol=1e-8)


def test_update_with_state_differs_from_one_without_which_says_so() -> None:
    kept, plain = trained(), trained(keep_state=False)
    assert {name: array.tobytes() for name, array in kept.bundle().weights.items()} == {
        name: array.tobytes() for name, array in plain.bundle().weights.items()
    }
    told: list[str] = []
    with_state, without = updated(kept), updated(plain, tell=told.append)
    assert (with_state.state, without.state) == ("carried", "anew")
    assert len(told) == 1
    assert "the optimiser's state was not saved with the model" in told[0]
    assert "--keep-state" in told[0]
    usual = kept.settings.learning_rate
    assert told[0].endswith(f"a learning rate of {0.35 * usual:g}, 0.35 of the model's instead of 0.7")
    updated(plain, tell=told.append, learning_rate=0.02)
    assert told[1].endswith("a learning rate of 0.02")
    assert not np.array_equal(with_state.gru.bundle().weights["Wy.weight"], without.gru.bundle().weights["Wy.weight"])
    assert updated(without.gru).state == "carried"  # from then on


def test_replay_takes_as_many_old_sessions_as_asked_evenly_among_the_new(monkeypatch: pytest.MonkeyPatch) -> None:
    logs = []
    mixed = gru4rec.update.job.mixed
    monkeypatch.setattr(gru4rec.update.job, "mixed", lambda *args: logs.append(mixed(*args)) or logs[-1])
    old = [*OLD, [3], [0, 1]]  # [3] gives no prediction and is never replayed
    for choice, share, n in (("recent", 0.4, 2), ("sample", 0.4, 2), ("sample", 9.0, 6)):
        settings = UpdateSettings(replay_share=share, replay=choice)
        assert updated(trained(), replay=log_of(old, "old.tsv"), settings=settings).n_replayed == n
    items = logs[0].items
    sessions = [
        [items.ids_of(log.item_idx[first:stop]) for first, stop in zip(log.offsets[:-1], log.offsets[1:], strict=True)]
        for log in logs
    ]
    # six new ones stand at 1/12, 3/12, ... 11/12, two old ones at 1/4 and 3/4, behind new ones of the same place
    assert sessions[0] == [NEW[0], NEW[1], [0, 2], NEW[2], NEW[3], NEW[4], [0, 1], NEW[5]]
    assert [one for one in sessions[2] if one in old] == [*OLD, [0, 1]]
    drawn = [one for one in sessions[1] if one in old]
    assert len(drawn) == 2
    assert logs[0].source == "new.tsv and 2 sessions of old.tsv"
    for seed in range(5):
        updated(trained(), replay=log_of(old), settings=UpdateSettings(replay_share=0.4), seed=seed)
    assert len({log.item_idx.tobytes() for log in logs[3:]}) > 1  # a sample is drawn by the seed


def test_unknown_items_of_the_old_log_are_left_out() -> None:
    settings = UpdateSettings(replay_share=1.0)
    result = updated(trained(), replay=log_of([[55, 66], [0, 1, 77], [2, 3]]), settings=settings)
    assert result.n_replayed == 2
    assert 77 not in result.gru.items.ids_of(range(result.gru.items.n_items))


def test_replayed_sessions_do_not_count_again_in_the_support() -> None:
    plain, replayed = (updated(trained(), replay=replay).gru for replay in (None, log_of(OLD)))
    assert replayed.support.tolist() == plain.support.tolist()


def test_decay_lowers_the_old_support_alone() -> None:
    gru = trained()
    after = updated(gru, settings=UpdateSettings(decay=0.5)).gru
    expected = np.maximum(np.rint(gru.support / 2) + np.array([1, 2, 1, 2]), 1)
    assert after.support.tolist() == [*expected, 5, 2, 2]


@pytest.mark.parametrize(("decay", "keep_state"), [(1.0, True), (0.5, True), (1.0, False)])
def test_new_items_start_alike_from_day_to_day(decay: float, *, keep_state: bool, tmp_path: Path) -> None:
    """Every day is like the first, so an event adds as much: eight times as many events halve no step of a new item."""
    gru = trained(n_sample=0, momentum=0.0, learning_rate=1e-9, keep_state=keep_state)
    added = []
    for _ in range(8):
        gru = updated(gru, OLD, settings=UpdateSettings(decay=decay), learning_rate=1e-9).gru
        gru.savemodel(tmp_path / "day.gru4rec")
        gru = GRU4Rec.loadmodel(tmp_path / "day.gru4rec", device="cpu")
        state = gru.training_state
        assert state is not None
        added.append(grown_state(state, 1, gru.support)["accumulator.Wy.weight"][-1].sum())
    np.testing.assert_allclose(added, added[0], rtol=0.05)


def test_an_update_trains_with_the_models_settings_a_smaller_step_and_fewer_passes() -> None:
    model = hyper_parameters({"layers": [7], "learning_rate": 0.2, "n_epochs": 10, "momentum": 0.3})
    for has_state, learning_rate in ((True, 0.14), (False, 0.07)):
        found = training_settings(model, {}, has_state=has_state, where="-us")
        assert found.learning_rate == pytest.approx(learning_rate)
        assert found == model.model_copy(update={"n_epochs": 2, "learning_rate": found.learning_rate})
    given = {"learning_rate": 0.5, "n_epochs": 4, "momentum": 0}
    found = training_settings(model, given, has_state=False, where="-us")
    assert found == model.model_copy(update=given)


@pytest.mark.parametrize("name", ["layers", "loss", "embedding", "constrained_embedding", "gru_variant"])
def test_settings_that_decide_the_weights_are_refused(name: str) -> None:
    with pytest.raises(ConfigError, match=f"{name} in the update's settings cannot be changed by an update"):
        updated(trained(), **{name: 7})


@pytest.mark.parametrize(
    "values", [{"replay_share": -1}, {"replay_share": float("nan")}, {"decay": 0}, {"decay": 1.1}, {"replay": "all"}]
)
def test_update_settings_out_of_range_are_refused(values: dict) -> None:
    with pytest.raises(ConfigError, match=next(iter(values))):
        UpdateSettings(**values)


class Halved(GRU4Rec):
    """A user's own loss."""

    def loss_fn_cross_entropy(self, *args: Any, **named: Any) -> Any:
        return super().loss_fn_cross_entropy(*args, **named) * 0.5


def test_an_own_loss_goes_on_in_an_update(tmp_path: Path) -> None:
    trained().savemodel(tmp_path / "m.gru4rec")
    weights = []
    for kind in (GRU4Rec, Halved):
        after = updated(kind.loadmodel(tmp_path / "m.gru4rec", device="cpu"), engine="plain").gru
        assert type(after) is kind
        weights.append(after.bundle().weights["Wy.weight"])
    assert not np.array_equal(*weights)


def test_a_loss_that_was_put_on_the_object_is_refused() -> None:
    gru = trained()
    gru.loss_fn_cross_entropy = lambda *args, **named: GRU4Rec.loss_fn_cross_entropy(gru, *args, **named)
    with pytest.raises(ConfigError, match=r"loss was put on the object itself.* Make it a method of a subclass"):
        updated(gru)


def test_nothing_to_train_on_is_refused() -> None:
    with pytest.raises(DataError, match=r"no session of new\.tsv has two events"):
        updated(trained(), [[0], [9], [1]])


def test_untrained_and_diverged_models_are_refused() -> None:
    with pytest.raises(ConfigError, match="not trained"):
        updated(GRU4Rec(**SMALL))
    gru = trained()
    gru.status = "diverged"
    with pytest.raises(DivergedError, match="diverged in training"):
        updated(gru)


def test_update_that_diverges_says_so_and_leaves_the_model() -> None:
    gru = trained()
    before = bits(gru)
    with pytest.raises(DivergedError, match="diverged"):
        updated(gru, learning_rate=1e38, n_epochs=20)
    assert bits(gru) == before
    assert gru.recommend([0], k=2).item_ids
