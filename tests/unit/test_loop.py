"""The training loop's report and its stop at a loss that is not a number."""

from __future__ import annotations

import pytest
import torch
from conftest import make_sessions

from gru4rec.data.batches import SessionDataIterator
from gru4rec.errors import DivergedError
from gru4rec.train.loop import EpochReport, train
from gru4rec.train.step import BatchStep


class ScriptedStep(BatchStep):
    """Returns the losses it is given."""

    def __init__(self, losses: list[float]) -> None:
        self.losses = iter(losses)
        self.calls: list[str] = []

    def start_epoch(self) -> None:
        self.calls.append("start")

    def end_epoch(self) -> None:
        self.calls.append("end")

    def __call__(self, batch: object) -> torch.Tensor:
        self.calls.append("step")
        return torch.tensor(next(self.losses))


def batches() -> SessionDataIterator:
    # lanes per step: 2, 2, 1
    return SessionDataIterator(make_sessions([[0, 1, 2, 3], [4, 5, 6]]), batch_size=2)


def test_epoch_loss_is_weighted_by_active_lanes() -> None:
    reports: list[EpochReport] = []
    steps: list[int] = []
    train(ScriptedStep([1.0, 2.0, 6.0] * 2), batches(), n_epochs=2, on_epoch=reports.append, on_step=steps.append)
    assert [report.loss for report in reports] == [(2 * 1 + 2 * 2 + 1 * 6) / 5] * 2
    assert [(report.epoch, report.n_steps, report.n_events) for report in reports] == [(1, 3, 5), (2, 3, 5)]
    assert steps == [2, 2, 1, 2, 2, 1]


def test_each_epoch_starts_and_ends() -> None:
    step = ScriptedStep([0.0] * 6)
    train(step, batches(), n_epochs=2, on_epoch=lambda _report: None)
    assert step.calls == ["start", "step", "step", "step", "end"] * 2


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_loss_that_is_not_finite_stops_and_says_where(bad: float) -> None:
    reports: list[EpochReport] = []
    with pytest.raises(DivergedError, match=rf"the loss is {bad} at epoch 2, step 3\. Lower learning_rate"):
        train(ScriptedStep([1.0] * 5 + [bad]), batches(), n_epochs=3, on_epoch=reports.append)
    assert len(reports) == 1


def test_long_epoch_is_stopped_before_its_end() -> None:
    sessions = make_sessions([[0, 1] * 2000])
    step = ScriptedStep([1.0, float("nan")] + [1.0] * 5000)
    with pytest.raises(DivergedError, match="epoch 1, step 2"):
        train(step, SessionDataIterator(sessions, batch_size=1), n_epochs=1, on_epoch=lambda _report: None)
    assert step.calls.count("step") < 1000


def test_report_line_is_the_known_one_byte_for_byte() -> None:
    report = EpochReport(epoch=1, loss=0.48330311, seconds=24.57, n_steps=6995, n_events=554_517)
    # 6995 / 24.57 = 284.697 and 554517 / 24.57 = 22568.9
    assert str(report) == "Epoch1 --> loss: 0.483303 \t(24.57s) \t[284.70 mb/s | 22569 e/s]"
