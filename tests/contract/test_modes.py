"""What must hold for every loss, input mode and cell: saved = loaded, same seed = same bits, every setting matters."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import GOLDEN, make_sessions

from gru4rec.api import GRU4Rec, batch_eval
from gru4rec.config import Engine, HyperParameters, Precision
from gru4rec.data.events import load_events
from gru4rec.data.sessions import Sessions
from gru4rec.errors import ConfigError, DataError, DivergedError
from gru4rec.evaluate.evaluator import evaluate
from gru4rec.model.scorer import GRUScorer

BASE: dict[str, Any] = {"layers": [8], "batch_size": 16, "n_sample": 24, "n_epochs": 1, "seed": 1, "learning_rate": 0.1}
LOSSES = {
    "xe": {"loss": "cross-entropy", "logq": 1.0},
    "bpr": {"loss": "bpr-max", "bpreg": 0.5, "elu_param": 0.5},
    "bpr-linear": {"loss": "bpr-max", "elu_param": 0.0},
}
MODES = {
    "shared": {},
    "separate": {"constrained_embedding": False, "embedding": 6},
    "none": {"constrained_embedding": False},
}
SHAPES = {
    "plain": {},
    "two-layers": {"layers": [8, 5]},
    "theano-cell": {"gru_variant": "reset_before", "layers": [7, 8]},
    "dropouts": {"dropout_p_embed": 0.3, "dropout_p_hidden": 0.2, "momentum": 0.3},
    "accumulation": {"grad_accumulation": 3, "momentum": 0.1},
}
COMBINATIONS = list(itertools.product(LOSSES, MODES, SHAPES))


def fit(sessions: Sessions, *, engine: Engine = "auto", **settings: Any) -> GRU4Rec:
    return GRU4Rec(device="cpu", **{**BASE, **settings}).fit(sessions, engine=engine)


def weights(gru: GRU4Rec) -> dict[str, np.ndarray]:
    return dict(gru.bundle().weights)


def same(first: GRU4Rec, second: GRU4Rec) -> bool:
    pairs = zip(weights(first).items(), weights(second).items(), strict=True)
    return all(name == other and np.array_equal(a, b) for (name, a), (other, b) in pairs)


@pytest.mark.parametrize(("loss", "mode", "shape"), COMBINATIONS, ids="-".join)
def test_any_combination_trains_repeats_saves_and_loads(
    loss: str, mode: str, shape: str, golden_train: Sessions, golden_test: Sessions, tmp_path: Path
) -> None:
    settings = {**LOSSES[loss], **MODES[mode], **SHAPES[shape]}
    losses: list[float] = []
    gru = GRU4Rec(device="cpu", **{**BASE, "n_epochs": 2, **settings})
    gru.fit(golden_train, on_epoch=lambda report: losses.append(report.loss))
    assert losses[1] < losses[0], "nothing was learned"
    assert same(gru, fit(golden_train, **settings, n_epochs=2)), "same seed, other bits"
    gru.savemodel(tmp_path / "m.gru4rec")
    loaded = GRU4Rec.loadmodel(tmp_path / "m.gru4rec", device="cpu")
    assert same(gru, loaded)
    assert loaded.settings == gru.settings
    before, after = (evaluate(model.scorer(), golden_test).counts for model in (gru, loaded))
    np.testing.assert_array_equal(before.n_higher, after.n_higher)
    ids = golden_test.items.ids_of(golden_test.item_idx[:5])
    assert loaded.recommend(ids) == gru.recommend(ids)


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize(("engine", "precision"), [("plain", "float32"), ("fast", "float32"), ("fast", "bf16")])
def test_same_seed_gives_the_same_bits_for_each_engine_and_thread_count(
    engine: Engine, precision: Precision, threads: int
) -> None:
    sessions = make_sessions([[(7 * session + 3 * place) % 50 for place in range(5)] for session in range(80)], 50)
    settings = {"layers": [128], "batch_size": 40, "n_sample": 2048, "n_epochs": 1, "seed": 5, "dropout_p_hidden": 0.2}
    first, second = (
        GRU4Rec(device="cpu", **settings).fit(
            sessions, engine=engine, precision=precision, threads=threads, on_epoch=lambda _: None
        )
        for _ in range(2)
    )
    assert same(first, second)


FLIPS: dict[str, dict[str, Any]] = {
    "layers": {"layers": [9]},
    "loss": {"loss": "bpr-max"},
    "batch_size": {"batch_size": 17},
    "dropout_p_embed": {"dropout_p_embed": 0.2},
    "dropout_p_hidden": {"dropout_p_hidden": 0.2},
    "learning_rate": {"learning_rate": 0.11},
    "momentum": {"momentum": 0.1},
    "sample_alpha": {"sample_alpha": 0.6},
    "n_sample": {"n_sample": 25},
    "embedding": {"constrained_embedding": False, "embedding": 6},
    "constrained_embedding": {"constrained_embedding": False},
    "n_epochs": {"n_epochs": 2},
    "bpreg": {"loss": "bpr-max", "bpreg": 0.9},
    "elu_param": {"loss": "bpr-max", "elu_param": 0.4},
    "logq": {"logq": 0.5},
    "gru_variant": {"gru_variant": "reset_before"},
    "grad_accumulation": {"grad_accumulation": 2},
    "seed": {"seed": 2},
}


def test_every_setting_has_a_flip() -> None:
    assert FLIPS.keys() == HyperParameters.model_fields.keys()


@pytest.mark.parametrize("name", FLIPS)
def test_flipping_a_setting_changes_the_trained_weights(name: str, golden_train: Sessions) -> None:
    flipped = FLIPS[name]
    others = {key: value for key, value in flipped.items() if key != name}
    if name == "embedding":
        others["embedding"] = 0
    first, second = fit(golden_train, **others), fit(golden_train, **flipped)
    shapes = [{key: weight.shape for key, weight in weights(gru).items()} for gru in (first, second)]
    assert shapes[0] != shapes[1] or not same(first, second)


def test_dropout_masks_follow_the_seed(golden_train: Sessions) -> None:
    """Same weights and negatives, so that only the masks can differ."""

    class OwnNegatives:
        n_sample = 24

        def next(self) -> np.ndarray:
            return np.arange(24, dtype=np.int32)

    start = weights(fit(golden_train, n_epochs=1))
    runs = []
    for seed in (1, 2, 1):
        gru = GRU4Rec(device="cpu", **{**BASE, "seed": seed, "dropout_p_hidden": 0.3})
        runs.append(gru.fit(golden_train, initial_weights=start, negatives=OwnNegatives()))
    assert same(runs[0], runs[2])
    assert not same(runs[0], runs[1])


def test_batch_eval_scores_as_many_sessions_at_once_as_asked(
    golden_train: Sessions, golden_test: Sessions, monkeypatch: pytest.MonkeyPatch
) -> None:
    gru, seen = fit(golden_train), []
    advance = GRUScorer.advance

    def watched(self: GRUScorer, state: Any, item_idx: Any) -> Any:
        seen.append(len(item_idx))
        return advance(self, state, item_idx)

    monkeypatch.setattr(GRUScorer, "advance", watched)
    batch_eval(gru, golden_test, batch_size=7)
    assert max(seen) == 7


def test_seed_none_starts_from_the_compatibility_weights_and_repeats(golden_train: Sessions) -> None:
    assert same(fit(golden_train, seed=None), fit(golden_train, seed=None))
    assert not same(fit(golden_train, seed=None), fit(golden_train, seed=42))


def test_evaluating_during_training_changes_nothing(golden_train: Sessions, golden_test: Sessions) -> None:
    """Scoring switches dropout off; the steps that follow must switch it on again."""
    settings = {**BASE, "n_epochs": 3, "dropout_p_hidden": 0.4, "dropout_p_embed": 0.2}
    watched = GRU4Rec(device="cpu", **settings)
    steps, kept = [], []

    def look(n_events: int) -> None:
        steps.append(n_events)
        if len(steps) % 50 == 1:
            evaluate(watched.scorer(), golden_test)
            kept.append(watched.scorer())  # used again after steps that trained with dropout
            assert evaluate(kept[0], golden_test).metrics([20]) == evaluate(watched.scorer(), golden_test).metrics([20])

    def listen(_report: object) -> None:
        lists = [watched.recommend([2407]).scores for _ in range(3)]
        assert lists[0] == lists[1] == lists[2]

    watched.fit(golden_train, on_epoch=listen, on_step=look)
    assert same(watched, GRU4Rec(device="cpu", **settings).fit(golden_train))


def test_loss_of_a_loaded_model_can_be_asked_for(golden_train: Sessions, tmp_path: Path) -> None:
    gru = fit(golden_train, logq=1.0)
    gru.savemodel(tmp_path / "m.gru4rec")
    loaded = GRU4Rec.loadmodel(tmp_path / "m.gru4rec", device="cpu")
    scores, columns = torch.zeros(2, 4), torch.tensor([5, 6, 7, 8])
    support = np.bincount(golden_train.item_idx)
    weights = np.array([support[5], support[6], support[7] ** 0.5, support[8] ** 0.5])
    expected = -np.log((1 / weights[:2]) / (1 / weights).sum()).sum()
    assert loaded.loss_fn_cross_entropy(scores, columns).item() == pytest.approx(expected, rel=1e-5)


def test_sessions_of_another_vocabulary_are_refused(golden_train: Sessions) -> None:
    other = Sessions.from_log(load_events(GOLDEN / "test.tsv"))
    with pytest.raises(DataError, match=r"another vocabulary than the model's\. Make them with"):
        batch_eval(fit(golden_train), other)


def test_sample_store_size_does_not_change_the_result(golden_train: Sessions) -> None:
    small = GRU4Rec(device="cpu", **BASE).fit(golden_train, sample_cache_max_size=100)
    assert same(small, fit(golden_train))


def test_training_twice_starts_anew(golden_train: Sessions) -> None:
    gru = fit(golden_train)
    first = weights(gru)
    again = weights(gru.fit(golden_train))
    assert all(np.array_equal(first[name], again[name]) for name in first)


def test_global_random_state_is_left_alone(golden_train: Sessions) -> None:
    torch.manual_seed(3)
    np.random.seed(3)
    expected = torch.rand(3), np.random.rand(3)
    torch.manual_seed(3)
    np.random.seed(3)
    fit(golden_train, dropout_p_hidden=0.3, seed=None)
    assert torch.equal(torch.rand(3), expected[0])
    np.testing.assert_array_equal(np.random.rand(3), expected[1])


@pytest.mark.parametrize("n_sessions", [1, 2, 5])
@pytest.mark.parametrize("n_sample", [0, 8])
def test_data_smaller_than_the_batch_works(n_sessions: int, n_sample: int) -> None:
    sessions = make_sessions([[0, 1, 2], [1, 2], [3, 0, 1], [2, 3], [0, 3]][:n_sessions], 4)
    settings = {"batch_size": 512, "n_sample": n_sample, "logq": 1.0}
    if n_sample == 0 and n_sessions == 1:
        with pytest.raises(Exception, match="n_sample=0 leaves no negative"):
            fit(sessions, **settings)
        return
    evaluation = evaluate(fit(sessions, **settings).scorer(), sessions)
    assert evaluation.n_targets == sessions.n_targets


def test_diverged_training_keeps_the_last_good_epoch_and_marks_the_model(
    golden_train: Sessions, golden_test: Sessions, tmp_path: Path
) -> None:
    class Diverging(GRU4Rec):
        def loss_fn_cross_entropy(self, scores_AM: torch.Tensor, column_idx_M: torch.Tensor) -> torch.Tensor:
            loss = super().loss_fn_cross_entropy(scores_AM, column_idx_M)
            return loss * float("nan") if self.n_epochs_done == 1 else loss

    gru = Diverging(device="cpu", **{**BASE, "n_epochs": 3})
    checkpoint = tmp_path / "m.checkpoint"
    with pytest.raises(DivergedError, match=r"epoch 2, step 1\. .*weights after epoch 1 are in .*m\.checkpoint"):
        gru.fit(golden_train, checkpoint_path=checkpoint)
    for use in (gru.scorer, lambda: gru.recommend([1]), gru.session):
        with pytest.raises(DivergedError, match="its weights are of no use"):
            use()
    gru.savemodel(tmp_path / "bad.gru4rec")
    with pytest.raises(DivergedError, match="its weights are of no use"):
        GRU4Rec.loadmodel(tmp_path / "bad.gru4rec", device="cpu")
    good = GRU4Rec.loadmodel(checkpoint, device="cpu")
    assert (good.status, good.n_epochs_done) == ("checkpoint", 1)
    assert same(good, fit(golden_train, engine="plain"))
    assert evaluate(good.scorer(), golden_test).n_targets == golden_test.n_targets


def test_weights_ruined_by_the_last_update_of_an_epoch_are_noticed(golden_train: Sessions) -> None:
    gru = GRU4Rec(device="cpu", **BASE)
    seen = 0

    def ruin_the_last_step(n_events: int) -> None:
        nonlocal seen
        seen += n_events
        if seen == golden_train.n_targets and gru.model is not None:
            gru.model.By.weight[3] = float("inf")

    with pytest.raises(DivergedError, match=r"By\.weight holds numbers that are not finite"):
        gru.fit(golden_train, on_step=ruin_the_last_step)
    assert (gru.status, gru.n_epochs_done) == ("diverged", 0)


def test_evaluation_of_weights_that_are_not_finite_is_refused(golden_train: Sessions, golden_test: Sessions) -> None:
    gru = fit(golden_train)
    assert gru.model is not None
    gru.model.Wy.weight[5] = float("nan")  # an item that is nobody's target or input
    with pytest.raises(DivergedError, match=r"Wy\.weight holds numbers that are not finite"):
        evaluate(gru.scorer(), golden_test)


def test_set_params_after_training_does_not_touch_the_trained_model(golden_train: Sessions, tmp_path: Path) -> None:
    gru = fit(golden_train).set_params(layers=[3], loss="bpr-max")
    gru.savemodel(tmp_path / "m.gru4rec")
    loaded = GRU4Rec.loadmodel(tmp_path / "m.gru4rec", device="cpu")
    assert loaded.settings.layers == (8,)
    assert same(loaded, gru)


def test_set_params_keeps_what_is_not_named_and_refuses_what_is_unknown() -> None:
    gru = GRU4Rec(device="cpu", momentum=0.3).set_params(layers="20/10")
    assert (gru.settings.momentum, gru.settings.layers) == (0.3, (20, 10))
    with pytest.raises(ConfigError, match=r"unknown parameter 'layer'.*did you mean 'layers'"):
        gru.set_params(layer=3)
