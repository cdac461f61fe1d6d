"""Ending a run when told to: the first signal is noted, a second Ctrl-C ends it at once."""

from __future__ import annotations

import signal
import threading
from types import FrameType, TracebackType
from typing import Any


class StopSignals:
    """While it is entered, SIGINT and SIGTERM are noted, and training stops where it can go on from.

    A second SIGINT ends it at once, a second SIGTERM does not: Slurm sends one to every process of a step, torchrun
    passes its own on, and SIGKILL is what comes when time is really up.

    Attributes:
        received: The signal's number, 0 before.
    """

    def __init__(self) -> None:
        self.received = 0
        self._before: dict[int, Any] = {}

    def __enter__(self) -> StopSignals:
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._note) for number in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._put_back()

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.received and number == signal.SIGTERM:
            return
        if self.received:
            self._put_back()
            signal.raise_signal(number)
        self.received = number

    def _put_back(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}


class Interrupts:
    """While it is entered, SIGINT raises KeyboardInterrupt and SIGTERM SystemExit; :meth:`check` does so once more.

    It is for what was lost: Python drops what is raised while it clears an object away, and databases clear away a lot.
    Schedulers send SIGTERM several times: the first one counts, so that things can be put away. A second Ctrl-C ends
    that too.
    """

    def __init__(self) -> None:
        self._received = 0
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Interrupts:
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._raise) for number in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        if error is None:
            self.check()

    def check(self) -> None:
        """Raise KeyboardInterrupt if there was a SIGINT, SystemExit with status 143 if there was a SIGTERM."""
        if self._received == signal.SIGTERM:
            raise SystemExit(128 + signal.SIGTERM)
        if self._received:
            raise KeyboardInterrupt

    def _raise(self, number: int, frame: FrameType | None) -> None:
        if number == signal.SIGTERM and self._received:
            return
        self._received = number
        self.check()
