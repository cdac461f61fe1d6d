"""Which engine trains, and what is refused."""

from __future__ import annotations

import logging
from typing import Any

import pytest
import torch
from torch import Tensor

from gru4rec.api import GRU4Rec
from gru4rec.config import Engine, Precision
from gru4rec.data.sessions import Sessions
from gru4rec.errors import ConfigError, DataError
from gru4rec.model.device import denormals_flushed
from gru4rec.train.engine import choose_engine


@pytest.mark.parametrize(
    ("engine", "own_loss", "expected"),
    [("auto", False, "fast"), ("fast", False, "fast"), ("plain", False, "plain"), ("auto", True, "plain")],
)
def test_engine_that_is_chosen(engine: Engine, own_loss: bool, expected: Engine) -> None:
    assert choose_engine(engine, "float32", on_cpu=True, own_loss=own_loss) == expected


@pytest.mark.parametrize(
    ("engine", "precision", "own_loss", "message"),
    [
        ("quick", "float32", False, "unknown engine 'quick'. Choose from auto, fast, plain"),
        ("auto", "fp8", False, "unknown precision 'fp8'. Choose from float32, tf32, bf16"),
        ("fast", "float32", True, "engine=fast knows the two losses' gradients only. Give engine=plain"),
        ("plain", "bf16", False, "precision=bf16 needs the fast engine"),
        ("auto", "bf16", True, "precision=bf16 goes with the two known losses only. Give precision=float32"),
        ("auto", "tf32", False, "precision=tf32 is a mode of NVIDIA GPUs. Give precision=bf16 or float32"),
    ],
)
def test_what_does_not_go_together_is_refused(engine: Any, precision: Any, own_loss: bool, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        choose_engine(engine, precision, on_cpu=True, own_loss=own_loss)


def test_tf32_is_accepted_on_a_gpu() -> None:
    assert choose_engine("auto", "tf32", on_cpu=False, own_loss=False) == "fast"


class OwnLoss(GRU4Rec):
    """Trains with half the loss."""

    def loss_fn_cross_entropy(self, scores_AM: Tensor, column_idx_M: Tensor, target_A: Tensor | None = None) -> Tensor:
        return super().loss_fn_cross_entropy(scores_AM, column_idx_M, target_A) / 2


@pytest.mark.parametrize("n_sample", [8, "all"])
def test_loss_of_a_subclass_is_the_one_that_trains(golden_train: Sessions, n_sample: Any) -> None:
    settings = {"layers": [4], "n_epochs": 1, "n_sample": n_sample, "learning_rate": 1e-6}
    losses: list[float] = []
    for model_class in (GRU4Rec, OwnLoss):
        model_class(device="cpu", **settings).fit(golden_train, on_epoch=lambda report: losses.append(report.loss))
    assert losses[1] == pytest.approx(losses[0] / 2, rel=1e-4)


def test_plain_and_fast_train_the_same_model_on_all_items(golden_train: Sessions) -> None:
    settings = {"layers": [8], "n_epochs": 1, "n_sample": "all", "loss": "bpr-max"}
    plain, fast = (
        GRU4Rec(device="cpu", dtype=torch.float64, **settings).fit(golden_train, engine=engine, on_epoch=print)
        for engine in ("plain", "fast")
    )
    for name, weight in plain.bundle().weights.items():
        torch.testing.assert_close(torch.from_numpy(fast.bundle().weights[name]), torch.from_numpy(weight))


def test_bf16_trains_another_but_near_model(golden_train: Sessions) -> None:
    losses: dict[Precision, float] = {}
    precisions: tuple[Precision, ...] = ("float32", "bf16")
    for precision in precisions:
        GRU4Rec(device="cpu", layers=[16], n_epochs=2).fit(
            golden_train, precision=precision, on_epoch=lambda report, key=precision: losses.update({key: report.loss})
        )
    assert losses["bf16"] != losses["float32"]
    assert losses["bf16"] == pytest.approx(losses["float32"], rel=0.01)


def test_bf16_without_its_instructions_is_remarked(
    golden_train: Sessions, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: False)
    with caplog.at_level(logging.WARNING, logger="gru4rec"):
        GRU4Rec(device="cpu", layers=[4], n_epochs=1).fit(golden_train, precision="bf16", on_epoch=lambda _: None)
    assert "no instructions for bfloat16" in caplog.text


@pytest.mark.parametrize("before", [False, True])
def test_denormals_are_flushed_inside_only(before: bool) -> None:
    def product() -> float:
        return torch.tensor([1e-40]).mul_(1.0).item()

    torch.set_flush_denormal(before)
    try:
        with denormals_flushed():
            assert product() == 0
        assert (product() == 0) == before
    finally:
        torch.set_flush_denormal(False)


def test_loss_put_on_the_object_is_the_one_that_trains(golden_train: Sessions) -> None:
    gru = GRU4Rec(device="cpu", layers=[4], n_epochs=1, n_sample=8)
    gru.loss_fn_cross_entropy = lambda scores_AM, column_idx_M: scores_AM.sum() * 0 + 64.0  # type: ignore[method-assign]
    losses: list[float] = []
    gru.fit(golden_train, on_epoch=lambda report: losses.append(report.loss))
    assert losses == [64.0 / gru.settings.batch_size]


def test_own_loss_without_targets_cannot_train_on_all_items(golden_train: Sessions) -> None:
    gru = GRU4Rec(device="cpu", layers=[4], n_epochs=1, n_sample="all")
    gru.loss_fn_cross_entropy = lambda scores_AM, column_idx_M: scores_AM.sum()  # type: ignore[method-assign]
    with pytest.raises(ConfigError, match="takes target_A="):
        gru.fit(golden_train)


def test_rounded_products_beside_float64_are_refused() -> None:
    with pytest.raises(ConfigError, match="precision=bf16 beside dtype=float64"):
        GRU4Rec(device="cpu", dtype=torch.float64).choose_engine("auto", "bf16")


class Constant:
    """Hands out the same negatives at each step."""

    def __init__(self, negatives: Any, n_sample: int = 8) -> None:
        self.negatives, self.n_sample = negatives, n_sample

    def next(self) -> Any:
        return self.negatives


@pytest.mark.parametrize(
    ("negatives", "message"),
    [
        ([-1] + [0] * 7, "the item index -1. Give indices from 0 to"),
        ([0] * 7 + [10**6], "the item index 1000000. Give indices from 0 to"),
        ([0], r"shape \(1,\) for a step. Give 8 item indices"),
        ([0.5] * 8, "float64 of shape"),
    ],
)
def test_wrong_negatives_of_a_caller_are_refused(golden_train: Sessions, negatives: Any, message: str) -> None:
    gru = GRU4Rec(device="cpu", layers=[4], n_epochs=1, n_sample=8, logq=1.0)
    with pytest.raises(DataError, match=message):
        gru.fit(golden_train, negatives=Constant(negatives))


def test_accumulation_beyond_the_epoch_needs_no_more_memory(golden_train: Sessions) -> None:
    settings = {"layers": [4], "n_epochs": 1, "n_sample": 8, "grad_accumulation": 10**6}
    plain, fast = (
        GRU4Rec(device="cpu", dtype=torch.float64, **settings).fit(golden_train, engine=engine, on_epoch=print)
        for engine in ("plain", "fast")
    )
    for name, weight in plain.bundle().weights.items():
        torch.testing.assert_close(torch.from_numpy(fast.bundle().weights[name]), torch.from_numpy(weight))
