"""A run folder, read while another process writes to it. Knows its files, not who writes them.

``config.json`` is replaced whole; ``metrics.jsonl`` grows, and is cut back when a run goes on from a checkpoint.
"""

from __future__ import annotations

import json
import socket
from collections import deque
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gru4rec.errors import DataError
from gru4rec.watch.figures import as_number, number_of

N_STEP_LINES = 400
"""Lines about steps that are kept: enough for a sparkline as wide as any terminal."""

_CLOCK_SLACK_S = 10.0


class WatchedRun:
    """What is known of a run; :meth:`refresh` reads what has come since.

    Args:
        path: The folder.

    Attributes:
        path: The folder.
        config: What ``config.json`` holds.
        steps: The newest lines about steps.
        epochs: A line for each epoch that is done.
        newest: The last line of either kind, None before the first.
        n_events_in_epoch: Targets trained on in the epoch that is not done, by the speed and time of its lines.
        n_unreadable: Whole lines that are no JSON object.

    Raises:
        DataError: It is not a run folder.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.config: dict[str, Any] = {}
        self._forget_lines()
        self._read_config(must=True)
        self.refresh()

    def refresh(self) -> None:
        """Read the settings and the new lines; half a line waits for its other half."""
        pid = self.config.get("pid")
        self._read_config(must=False)
        if self.config.get("pid") != pid:  # the run went on in another process, from an earlier line perhaps
            self._forget_lines()
        self._read_lines()
        if self.is_lost:  # or it ended between the two looks
            self._read_config(must=False)

    @property
    def pid(self) -> int | None:
        """The process that trains or trained, where it is known."""
        pid = self.config.get("pid")
        return pid if isinstance(pid, int) and not isinstance(pid, bool) and pid > 0 else None

    @property
    def is_here(self) -> bool:
        """Whether the process, by its account, is or was on this machine."""
        return self.config.get("host") in (None, socket.gethostname())

    @property
    def is_alive(self) -> bool:
        """Whether the process is on this machine and runs."""
        return self.is_here and self.pid is not None and _is_process(self.pid, self._config_time())

    @property
    def is_lost(self) -> bool:
        """Whether the run says that it is running and its process is gone."""
        return self.config.get("status") == "running" and self.is_here and not self.is_alive

    @property
    def is_over(self) -> bool:
        """Whether no more lines will come."""
        return self.config.get("status") != "running" or self.is_lost

    def status(self) -> str:
        """Say how the run stands."""
        status, pid = str(self.config.get("status", "unknown")), "?" if self.pid is None else self.pid
        if self.is_lost:
            return f"lost: no process {pid} on this host; go on with --resume"
        if status == "running" and not self.is_here:
            return f"running, as process {pid} on {self.config['host']}, by its own account"
        return f"running, process {pid}" if status == "running" else status

    def n_epochs_done(self) -> float:
        """Return the epochs done, with the share of the one that is not."""
        n_events = number_of(self.config, "n_events")
        return len(self.epochs) + (min(1.0, self.n_events_in_epoch / n_events) if n_events else 0.0)

    def seconds_left(self) -> float | None:
        """Return the seconds of training left at the speed of the last lines, None where it cannot be told."""
        n_epochs, n_events = number_of(self.config, "n_epochs"), number_of(self.config, "n_events")
        lines = [line for line in list(self.steps)[-5:] or self.epochs[-2:] if number_of(line, "events_per_second")]
        if n_epochs is None or n_events is None or not lines:
            return None
        per_second = sum(number_of(line, "events_per_second") or 0.0 for line in lines) / len(lines)
        return max(0.0, n_epochs - self.n_epochs_done()) * n_events / per_second if per_second > 0 else None

    def epoch_speed(self, place: int) -> float | None:
        """Return an epoch's targets a second; its own line has the speed of its last steps."""
        n_events, end = number_of(self.config, "n_events"), number_of(self.epochs[place], "time")
        begin = number_of(self.epochs[place - 1], "time") if place else 0.0
        return n_events / (end - begin) if n_events and end is not None and begin is not None and end > begin else None

    def machine_samples(self, n_lines: int) -> list[Mapping[str, object]]:
        """Return what the last lines say of the machine, the newest last."""
        lines = list(self.steps)[-n_lines:] or self.epochs[-n_lines:]
        return [line["machine"] for line in lines if isinstance(line.get("machine"), dict)]

    def best_epoch(self) -> int | None:
        """Return the place in ``epochs`` of the best value of what decides, the earlier of equal ones."""
        name = self.deciding_metric()
        values = {
            place: value
            for place, line in enumerate(self.epochs)
            if name and (value := number_of(validation_of(line), name)) is not None
        }
        return max(values, key=lambda place: values[place]) if values else None

    def metrics(self) -> list[str]:
        """Return the names of the validation metrics."""
        return list(dict.fromkeys(name for line in self.epochs for name in validation_of(line)))

    def deciding_metric(self) -> str | None:
        """Return the metric that makes an epoch the best: the run's primary one, else the first."""
        names, cutoffs = self.metrics(), self.config.get("cutoffs")
        primary = f"{self.config.get('metric')}@{cutoffs[0]}" if isinstance(cutoffs, list) and cutoffs else None
        return primary if primary in names else next(iter(names), None)

    def _forget_lines(self) -> None:
        self.steps: deque[dict[str, Any]] = deque(maxlen=N_STEP_LINES)
        self.epochs: list[dict[str, Any]] = []
        self.newest: dict[str, Any] | None = None
        self.n_events_in_epoch, self.n_unreadable, self._n_bytes = 0.0, 0, 0

    def _config_time(self) -> float:
        try:
            return (self.path / "config.json").stat().st_mtime
        except OSError:
            return float("inf")

    def _read_config(self, *, must: bool) -> None:
        """Read ``config.json``; once it was there, one that cannot be read is left for the next time."""
        path = self.path / "config.json"
        advice = "Give the folder of gru4rec train --run-dir"
        if (self.path / "study.db").exists() or (self.path / "study.json").exists():
            advice = "It is the folder of a study: see its report.html, or run optuna-dashboard"
        try:
            config = json.loads(path.read_text(encoding="utf-8"))
            if not isinstance(config, dict) or "status" not in config:
                raise ValueError("no settings of a run")
        except OSError as error:
            if must:
                raise DataError(f"{self.path} is not a run folder: {path.name}: {error.strerror}. {advice}") from None
        except ValueError as error:
            if must:
                raise DataError(
                    f"{self.path} is not a run folder: cannot read {path.name}: {error}. {advice}"
                ) from None
        else:
            self.config = config

    def _read_lines(self) -> None:
        try:
            with open(self.path / "metrics.jsonl", "rb") as file:
                if file.seek(0, 2) < self._n_bytes:
                    self._forget_lines()
                file.seek(self._n_bytes)
                for text in file:
                    line = _json_object(text)
                    if line is None and not text.endswith(b"\n"):
                        break  # it is being written
                    self._n_bytes += len(text)
                    if line is not None:
                        self._take(line)
                    else:
                        self.n_unreadable += bool(text.strip())
        except OSError:  # not there yet, or not for a moment
            return

    def _take(self, line: dict[str, Any]) -> None:
        if line.get("kind") == "epoch":
            self.epochs.append(line)
            self.n_events_in_epoch = 0.0
        elif line.get("kind") == "steps":
            self.steps.append(line)
            before = number_of(self.newest or {}, "time") or 0.0
            seconds = (number_of(line, "time") or 0.0) - before
            self.n_events_in_epoch += max(0.0, seconds) * (number_of(line, "events_per_second") or 0.0)
        else:
            return
        self.newest = line


def validation_of(line: Mapping[str, Any]) -> dict[str, Any]:
    """Return the validation metrics of an epoch's line, none where it was not measured."""
    values = line.get("validation")
    return (
        {name: value for name, value in values.items() if as_number(value) is not None}
        if isinstance(values, dict)
        else {}
    )


def _json_object(text: bytes) -> dict[str, Any] | None:
    try:
        value = json.loads(text)
    except ValueError:
        return None
    return value if isinstance(value, dict) else None


def _is_process(pid: int, noted_at: float) -> bool:
    """Tell whether a process runs that was there when its number was noted; numbers are given out anew."""
    import psutil  # type: ignore[import-untyped, import-not-found, unused-ignore]

    try:
        process = psutil.Process(pid)
        return bool(process.status() != psutil.STATUS_ZOMBIE and process.create_time() <= noted_at + _CLOCK_SLACK_S)
    except psutil.AccessDenied:
        return True
    except psutil.Error:
        return False
