"""``gru4rec monitor``: a run and its machine, live."""

from __future__ import annotations

import argparse
import math
import time
from collections import deque
from collections.abc import Mapping
from typing import TYPE_CHECKING

from gru4rec.errors import ConfigError

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

    from gru4rec.watch.machine import MachineWatch
    from gru4rec.watch.run_folder import WatchedRun

HELP = "watch a training run and its machine"

_N_SAMPLES = 10
_GLANCE_S = 0.5
"""How long ``--once`` measures the machine."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the flags."""
    parser.add_argument("path", metavar="RUN_DIR", help="folder of a run, running or not (gru4rec train --run-dir)")
    parser.add_argument("--once", action="store_true", help="print one view and end")
    parser.add_argument(
        "--interval", metavar="SECONDS", type=float, default=1.0, help="time between two views, 0.2 to 3600 (1)"
    )


def run(args: argparse.Namespace) -> int:
    """Carry the command out; it ends with the run, and Ctrl-C is the way to leave before."""
    from rich.console import Console

    from gru4rec.watch.run_folder import WatchedRun

    if not (math.isfinite(args.interval) and 0.2 <= args.interval <= 3600):
        raise ConfigError(f"--interval {args.interval:g} is not from 0.2 to 3600 seconds. Give another, such as 1")
    screen = _Screen(WatchedRun(args.path), Console(highlight=False))
    try:
        if args.once:
            screen.glance()
        else:
            screen.live(args.interval)
    except KeyboardInterrupt:
        return 0
    return 0


class _Screen:
    """What is shown of a run, and the samples it comes from."""

    def __init__(self, run: WatchedRun, console: Console) -> None:
        self._run, self._console = run, console
        self._samples: deque[Mapping[str, object]] = deque(run.machine_samples(_N_SAMPLES), maxlen=_N_SAMPLES)
        self._watch: MachineWatch | None = None
        self._watched: int | None = None
        self._follow()

    def glance(self) -> None:
        """Print one view, however long."""
        if self._watch is not None:
            time.sleep(_GLANCE_S)
        self._refresh()
        self._console.print(self._view(None), soft_wrap=True)

    def live(self, interval_s: float) -> None:
        """Show the run until it is over."""
        from rich.live import Live

        with Live(console=self._console, auto_refresh=False, screen=False) as live:
            while True:
                live.update(self._view(self._console.size.height - 1), refresh=True)
                if self._run.is_over:
                    return
                time.sleep(interval_s)
                self._refresh()

    def _refresh(self) -> None:
        self._run.refresh()
        is_new = self._follow()
        if self._watch is None:
            self._samples = deque(self._run.machine_samples(_N_SAMPLES), maxlen=_N_SAMPLES)
        elif not is_new:  # a new watch has nothing to say yet
            self._samples.append(self._watch.sample())

    def _follow(self) -> bool:
        """Watch the process where it runs on this machine, else what the run recorded; returns whether that changed."""
        from gru4rec.watch.machine import MachineWatch

        pid = self._run.pid if self._run.is_alive and not self._run.is_over else None
        if pid == self._watched:
            return False
        self._watched, self._watch = pid, None if pid is None else MachineWatch(pid)
        return True

    def _view(self, height: int | None) -> Text:
        from gru4rec.watch.bars import ASCII
        from gru4rec.watch.view import view

        shown = view(self._run, list(self._samples), width=self._console.width, height=height)
        if self._console.options.ascii_only:
            shown.plain = shown.plain.translate(ASCII).encode("ascii", "replace").decode()
        return shown
