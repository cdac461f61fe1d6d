"""What a run leaves behind while it trains, metrics, checkpoints and the best model, and how it goes on from them."""

from __future__ import annotations

import math
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from gru4rec.api import GRU4Rec
from gru4rec.errors import ConfigError, DataError, ModelFileError, StoppedError
from gru4rec.runs.curves import Curves
from gru4rec.runs.folder import RunFolder
from gru4rec.runs.metrics_file import MetricsFile
from gru4rec.runs.signals import StopSignals
from gru4rec.runs.validation import Best, Validation
from gru4rec.train.checkpoint import checkpoint_of, load_checkpoint, save_checkpoint
from gru4rec.train.loop import EpochReport, Position, Training
from gru4rec.watch.hints import hints
from gru4rec.watch.machine import MachineWatch


@dataclass(frozen=True)
class Pace:
    """How often what is written.

    Attributes:
        log_steps: Steps between lines of metrics within an epoch; 0: lines of epochs only.
        checkpoint_steps: Steps between checkpoints; 0: by time alone.
        checkpoint_seconds: Seconds between checkpoints.
    """

    log_steps: int = 1000
    checkpoint_steps: int = 0
    checkpoint_seconds: float = 300.0


@dataclass
class _Since:
    """Sums at the last line of metrics, from which the next line's means are taken."""

    loss_sum: float = 0.0
    n_events: int = 0
    seconds: float = 0.0
    accumulated: float = 0.0
    n_updates: int = 0


class RunRecorder:
    """Records a run of :meth:`gru4rec.api.GRU4Rec.fit`; see :class:`gru4rec.train.loop.Recorder`.

    Checkpoints are written between steps that leave no gradient waiting; on a GPU, which runs ahead, after epochs.

    Args:
        folder: Of the run.
        gru: What is trained.
        pace: How often what is written.
        validation: What is measured after each epoch; None: nothing.
        stop: Told when to stop.
        curves: Gets every line of metrics too; None: nobody.
        n_threads: CPU threads that training may use, for what the machine holds back.
        tell: Called with what the user should know.

    Attributes:
        best: The best epoch so far.
        best_path: Where its model is.

    Raises:
        StoppedError: From training, once a signal came and the checkpoint is written.
    """

    def __init__(
        self,
        folder: RunFolder,
        gru: GRU4Rec,
        *,
        pace: Pace,
        validation: Validation | None = None,
        stop: StopSignals | None = None,
        curves: Curves | None = None,
        n_threads: int = 1,
        tell: Callable[[str], None] = lambda message: None,
    ) -> None:
        self.folder, self.best, self.best_path = folder, Best(), folder.best
        self._gru, self._pace, self._validation = gru, pace, validation
        self._stop, self._curves, self._tell = stop or StopSignals(), curves, tell
        self._metrics = MetricsFile(folder.metrics, tell)
        self._watch, self._n_threads = MachineWatch(), n_threads
        self._samples: list[Mapping[str, object]] = []
        self._was_held_back = False
        self._since = _Since()
        self._epoch, self._step, self._seconds_before = 1, 0, 0.0
        self._checkpoint_step = 0
        self._next_checkpoint = time.monotonic() + pace.checkpoint_seconds
        self._training: Training

    def begin(self, training: Training) -> Position:
        """Go on from the newest checkpoint, or begin where there is none.

        Raises:
            ModelFileError: It is damaged, of another model, or gone.
        """
        self._training = training
        self._tidy_up()
        if not self.folder.checkpoint.exists():
            if self.folder.model.exists():
                raise ModelFileError(
                    f"{self.folder.checkpoint}, where the run goes on, is gone. Put it back, or train anew in another "
                    "folder"
                )
            if not self.folder.is_new:
                self._tell("the run was ended before its first checkpoint: it begins anew")
            self._metrics.go_on(0, "")
            if self._curves is not None:
                self._curves.go_on(0)
            return Position()
        position, more = self._load(self.folder.checkpoint)
        self._metrics.go_on(more["metrics_bytes"], more["metrics_waiting"])
        self._since, self.best = _Since(**more["since"]), Best(**more["best"])
        self.best_path = Path(more["best_path"] or self.folder.best)
        self._epoch, self._step = position.epoch, position.step
        self._seconds_before = more["seconds_before"]
        self._checkpoint_step = self._n_steps_before + position.step
        self._check_going_on()
        if self._curves is not None:
            self._curves.go_on(self._checkpoint_step)
        if position.step == 0 and self._has_no_hope(position.epoch - 1):
            return Position(self._gru.settings.n_epochs + 1)
        self._tell(f"going on at epoch {position.epoch}, step {position.step}")
        return position

    def after_steps(self, step: int, position: Callable[[], Position]) -> None:
        """Write a line or a checkpoint where one is due; stop if told to."""
        is_last = step == self._training.batches.n_steps
        if self._passes(self._pace.log_steps, step) and not is_last:
            self._add_line("steps", position())
        self._step = step
        if self._may_keep():
            hidden = self._training.step.state()
            if hidden is not None:
                self._keep(position(), hidden)

    def after_epoch(self, report: EpochReport) -> bool:
        """Validate, write a line and, where one is due, a checkpoint; returns whether to go on."""
        measured = None
        if self._validation is not None:
            measured = self._validation.measure(self._gru.scorer())
            name = self._validation.name
            self._note_best(report.epoch, measured[name])
            self._tell(
                f"epoch {report.epoch}: {name} {measured[name]:.6f} on the validation log "
                f"(best: {self.best.value:.6f}, epoch {self.best.epoch})"
            )
        self._warn_of_the_machine()
        loss_sum = report.loss * report.n_events
        end = Position(report.epoch, report.n_steps, loss_sum, report.n_events, report.seconds)
        self._add_line("epoch", end, loss=report.loss, validation=measured)
        self._seconds_before += report.seconds
        self._since = _Since(accumulated=self._since.accumulated, n_updates=self._since.n_updates)
        self._epoch, self._step, self._samples = report.epoch + 1, 0, []
        is_over = self._has_no_hope(report.epoch)
        ends = is_over or report.epoch == self._gru.settings.n_epochs
        if self._agreed(ends or self._is_due()):
            self._keep(Position(self._epoch), [], ends=ends)
        return not is_over

    def received(self) -> int:
        """Return the signal that was received, 0 if none was; in all processes the same."""
        return self._stop.received

    def _tidy_up(self) -> None:
        """Make the folder of checkpoints, and remove what a kill left there."""
        self.folder.checkpoint.parent.mkdir(exist_ok=True)
        for unfinished in self.folder.checkpoint.parent.glob(".*"):
            unfinished.unlink()

    def _load(self, path: Path) -> tuple[Position, Mapping[str, Any]]:
        """Bring training to where a checkpoint was taken; return the place, and what else was kept."""
        checkpoint = load_checkpoint(path)
        checkpoint.restore(self._training)
        return checkpoint.position, checkpoint.more

    def _save(self, position: Position, hidden: Sequence[torch.Tensor], more: Mapping[str, Any], path: Path) -> None:
        """Write a checkpoint.

        Raises:
            DataError: It cannot be written.
        """
        save_checkpoint(checkpoint_of(self._training, position, hidden, more), path)

    def _may_keep(self) -> bool:
        """Tell between two steps whether a checkpoint is to be taken."""
        return self._is_due()

    def _agreed(self, wanted: bool) -> bool:
        """Return what is to be done, where several processes train, in all of them."""
        return wanted

    def _is_due(self) -> bool:
        """Tell whether a checkpoint is due; it stays so until one could be taken."""
        return self._is_due_by_steps() or bool(self._stop.received) or time.monotonic() >= self._next_checkpoint

    def _is_due_by_steps(self) -> bool:
        n_steps = self._n_steps_before + self._step - self._checkpoint_step
        return 0 < self._pace.checkpoint_steps <= n_steps

    def _check_going_on(self) -> None:
        """Make sure, before anything is trained, that the run can end as it is asked to.

        Raises:
            ConfigError: More epochs are done than are asked for.
            ModelFileError: The best epoch's model is gone.
        """
        n_done, n_epochs = self._epoch - 1, self._gru.settings.n_epochs
        if n_done > n_epochs:
            raise ConfigError(
                f"the run in {self.folder.path} has {n_done} epochs behind it, and n_epochs={n_epochs} is asked for. "
                "Ask for as many or more"
            )
        if self.best.epoch and not self.best_path.exists():
            raise ModelFileError(f"{self.best_path}, the model of the best epoch, is gone. Put it back, or train anew")

    def _passes(self, every: int, step: int) -> bool:
        """Tell whether a multiple of ``every`` came since the last call: a GPU takes many steps at once."""
        return bool(every) and step // every > self._step // every

    @property
    def _n_steps_before(self) -> int:
        """Steps of the epochs before this one."""
        return (self._epoch - 1) * self._training.batches.n_steps

    def _warn_of_the_machine(self) -> None:
        """Say what held the epoch back, unless the one before was held back too."""
        self._samples.append(self._sample())
        found = hints(self._samples, n_threads=self._n_threads)
        if not self._was_held_back:
            for hint in found:
                self._tell(f"warning: {hint}")
        self._was_held_back = bool(found)

    def _sample(self) -> Mapping[str, object]:
        """Measure what the run and its machine do."""
        return self._watch.sample()

    def _has_no_hope(self, epoch: int) -> bool:
        patience = 0 if self._validation is None else self._validation.patience
        if not patience or epoch - self.best.epoch < patience:
            return False
        self._tell(f"nothing better on the validation log in {patience} epochs: training ends with epoch {epoch}")
        return True

    def _note_best(self, epoch: int, value: float) -> None:
        best = self.best.after(epoch, value)
        if best is self.best:
            return
        for path in (self.folder.best, Path(tempfile.gettempdir()) / f"{self.folder.path.name}-best.gru4rec"):
            try:
                self._gru.savemodel(path)
            except ModelFileError as error:
                self._tell(f"warning: {error}")
                continue
            self.best, self.best_path = best, path
            return

    def _keep(self, position: Position, hidden: list[torch.Tensor], *, ends: bool = False) -> None:
        """Write a checkpoint, elsewhere if it must be the last one and there is no room; stop if told to.

        A signal that comes meanwhile is for the next one.
        """
        self._gru.check_finite()
        received = self.received()
        more = {
            "metrics_bytes": self._metrics.n_bytes,
            "metrics_waiting": self._metrics.waiting,
            "since": asdict(self._since),
            "best": asdict(self.best),
            "best_path": None if self.best_path == self.folder.best else str(self.best_path),
            "seconds_before": self._seconds_before,
        }
        paths = [self.folder.checkpoint]
        if received:
            paths.append(Path(tempfile.gettempdir()) / f"{self.folder.path.name}-checkpoint.safetensors")
        kept = None
        for path in paths:
            try:
                self._save(position, hidden, more, path)
                kept = path
                break
            except DataError as error:
                self._tell(f"warning: {error}")
        self._next_checkpoint = time.monotonic() + self._pace.checkpoint_seconds
        self._checkpoint_step = self._n_steps_before + self._step
        if received and not ends:
            where = f"epoch {position.epoch}, step {position.step}"
            if kept == self.folder.checkpoint:
                how = "The same command with --resume goes on from there"
            elif kept is not None:
                how = f"Copy {kept} to {self.folder.checkpoint}, then the same command with --resume goes on from there"
            else:
                how = "No checkpoint could be written; --resume goes on from the one before"
            raise StoppedError(f"stopped at {where}. {how}", received)

    def _add_line(self, kind: str, position: Position, **more: Any) -> None:
        """Write a line: means since the line before, but an epoch's loss is that of the whole epoch."""
        if kind == "steps":
            self._samples.append(self._sample())
        since, accumulated = self._since, self._accumulated()
        n_steps, n_updates = self._n_steps_before + position.step, self._n_updates(position.step)
        n_events, seconds = position.n_events - since.n_events, position.seconds - since.seconds
        line = {
            "kind": kind,
            "epoch": position.epoch,
            "step": n_steps,
            "time": self._seconds_before + position.seconds,
            "loss": (position.loss_sum - since.loss_sum) / max(n_events, 1),
            "events_per_second": n_events / max(seconds, 1e-9),
            "gradient_norm": (max(accumulated - since.accumulated, 0.0) / max(n_updates - since.n_updates, 1)) ** 0.5,
            "weight_norm": self._weight_norm(),
            "machine": self._samples[-1],
            **more,
        }
        self._since = _Since(position.loss_sum, position.n_events, position.seconds, accumulated, n_updates)
        self._metrics.add(line)
        if self._curves is not None:
            self._curves.add(line)

    def _n_updates(self, step: int) -> int:
        """Return the updates up to a step of this epoch; an epoch's last one may be of fewer steps."""
        share, n_steps = self._training.model.settings.grad_accumulation, self._training.batches.n_steps
        of_epoch = step // share if step < n_steps else -(-n_steps // share)
        return (self._epoch - 1) * -(-n_steps // share) + of_epoch

    def _accumulated(self) -> float:
        """Return the sum of all squared gradients so far: what Adagrad accumulates."""
        state_of = self._training.optimizer.state_of
        return self._total(lambda weight: state_of(weight)[0].sum(dtype=torch.float64))

    def _weight_norm(self) -> float:
        squares = self._total(lambda weight: torch.linalg.vector_norm(weight.detach(), dtype=torch.float64) ** 2)
        return math.sqrt(squares)

    def _total(self, of_weight: Callable[[torch.Tensor], torch.Tensor]) -> float:
        """Return the sum of a number over all weights."""
        return float(torch.stack([of_weight(weight) for weight in self._training.model.parameters()]).sum())
