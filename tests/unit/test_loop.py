"""The training loop's report and its stop at a loss that is not a number."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from conftest import make_sessions

from gru4rec.data.batches import SessionDataIterator
from gru4rec.errors import DivergedError
from gru4rec.train.loop import EpochReport, Position, Training, train
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

    def state(self) -> list[torch.Tensor]:
        return []

    def restore(self, hidden: object) -> None:
        self.calls.append("restore")


def scripted(losses: list[float], batches_: SessionDataIterator | None = None) -> Training:
    nothing: Any = None  # a scripted step has no model
    return Training(nothing, nothing, ScriptedStep(losses), batches_ or batches())


def calls_of(training: Training) -> list[str]:
    assert isinstance(training.step, ScriptedStep)
    return training.step.calls


def batches() -> SessionDataIterator:
    # lanes per step: 2, 2, 1
    return SessionDataIterator(make_sessions([[0, 1, 2, 3], [4, 5, 6]]), batch_size=2)


def test_epoch_loss_is_weighted_by_active_lanes() -> None:
    reports: list[EpochReport] = []
    steps: list[int] = []
    train(scripted([1.0, 2.0, 6.0] * 2), n_epochs=2, on_epoch=reports.append, on_step=steps.append)
    assert [report.loss for report in reports] == [(2 * 1 + 2 * 2 + 1 * 6) / 5] * 2
    assert [(report.epoch, report.n_steps, report.n_events) for report in reports] == [(1, 3, 5), (2, 3, 5)]
    assert steps == [2, 2, 1, 2, 2, 1]


def test_each_epoch_starts_and_ends() -> None:
    training = scripted([0.0] * 6)
    train(training, n_epochs=2, on_epoch=lambda _report: None)
    assert calls_of(training) == ["start", "step", "step", "step", "end"] * 2


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_loss_that_is_not_finite_stops_and_says_where(bad: float) -> None:
    reports: list[EpochReport] = []
    with pytest.raises(DivergedError, match=rf"the loss is {bad} at epoch 2, step 3\. Lower learning_rate"):
        train(scripted([1.0] * 5 + [bad]), n_epochs=3, on_epoch=reports.append)
    assert len(reports) == 1


def test_long_epoch_is_stopped_before_its_end() -> None:
    sessions = make_sessions([[0, 1] * 2000])
    training = scripted([1.0, float("nan")] + [1.0] * 5000, SessionDataIterator(sessions, batch_size=1))
    with pytest.raises(DivergedError, match="epoch 1, step 2"):
        train(training, n_epochs=1, on_epoch=lambda _report: None)
    assert calls_of(training).count("step") < 1000


class StartsLater:
    """A recorder that goes on in the middle, and ends training after an epoch."""

    def __init__(self, start: Position, last_epoch: int) -> None:
        self.start, self.last_epoch = start, last_epoch
        self.seen: list[tuple[int, Position]] = []

    def begin(self, training: Training) -> Position:
        return self.start

    def after_steps(self, step: int, position: Callable[[], Position]) -> None:
        self.seen.append((step, position()))

    def after_epoch(self, report: EpochReport) -> bool:
        return report.epoch < self.last_epoch


def test_training_goes_on_where_the_recorder_says_and_ends_when_it_says() -> None:
    reports: list[EpochReport] = []
    training = scripted([2.0, 6.0, 1.0, 2.0, 6.0])
    recorder = StartsLater(Position(epoch=2, step=1, loss_sum=2.0, n_events=2, seconds=5.0), last_epoch=3)
    train(training, n_epochs=9, on_epoch=reports.append, start=recorder.start, recorder=recorder)
    assert calls_of(training) == ["step", "step", "end", "start", "step", "step", "step", "end"]
    assert [(report.epoch, report.loss, report.n_events) for report in reports] == [(2, 12 / 5, 5), (3, 12 / 5, 5)]
    assert reports[0].seconds > 5 > reports[1].seconds
    assert [step for step, _ in recorder.seen] == [2, 3, 1, 2, 3]
    assert [position.loss_sum for _, position in recorder.seen] == [6, 12, 2, 6, 12]


def test_sum_of_losses_does_not_depend_on_when_it_is_read() -> None:
    losses = torch.rand(3, generator=torch.Generator().manual_seed(4), dtype=torch.float64).tolist()
    often, once = StartsLater(Position(), 1), StartsLater(Position(), 1)
    once.after_steps = lambda step, position: None  # type: ignore[method-assign]
    ends = []
    for recorder in (often, once):
        train(scripted(losses), n_epochs=1, on_epoch=ends.append, recorder=recorder)
    assert ends[0].loss == ends[1].loss


def test_report_line_is_the_known_one_byte_for_byte() -> None:
    report = EpochReport(epoch=1, loss=0.48330311, seconds=24.57, n_steps=6995, n_events=554_517)
    # 6995 / 24.57 = 284.697 and 554517 / 24.57 = 22568.9
    assert str(report) == "Epoch1 --> loss: 0.483303 \t(24.57s) \t[284.70 mb/s | 22569 e/s]"
