"""Searches as programs of their own, whose workers a test kills."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from conftest import ROOT
from sqlalchemy import create_engine, exc, text
from tune.small_shop import words

LONG = "n_epochs=4,n_sample=16,batch_size=16"

_RUNNING = """SELECT worker.value_json FROM trials JOIN studies USING (study_id)
JOIN trial_user_attributes AS worker ON worker.trial_id = trials.trial_id AND worker.key = 'worker'
JOIN trial_user_attributes AS drawn ON drawn.trial_id = trials.trial_id AND drawn.key = 'settings'
WHERE trials.state = 'RUNNING' AND (:study = '' OR studies.study_name = :study)"""


class Programs:
    """Starts programs, and ends those that a failed test leaves."""

    def __init__(self) -> None:
        self._started: list[subprocess.Popen[str]] = []
        self._seen: set[int] = set()

    def start(self, shop: Path, run_dir: Path, *flags: Any, fixed: str) -> subprocess.Popen[str]:
        """Start a search."""
        command = [sys.executable, str(ROOT / "paropt.py"), *words(shop, run_dir, *flags, fixed=fixed)]
        pipes: Any = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        self._started.append(subprocess.Popen(command, cwd=ROOT, **pipes))
        return self._started[-1]

    def wait_for_worker(self, storage: str, study: str = "") -> int:
        """Wait for a trial that runs, with all settings drawn, in a worker not seen before; return its process."""
        is_file = storage.startswith("sqlite")
        engine = create_engine(storage.replace("postgresql:", "postgresql+psycopg:"))
        try:
            for _ in range(600):
                if not is_file or Path(storage.removeprefix("sqlite:///")).exists():
                    fresh = self._running(engine, study) - self._seen
                    if fresh:
                        self._seen.add(min(fresh))
                        return min(fresh)
                time.sleep(0.1)
        finally:
            engine.dispose()
        raise AssertionError("no trial runs")

    def kill_worker(self, storage: str, study: str = "") -> None:
        """Kill such a worker."""
        os.kill(self.wait_for_worker(storage, study), signal.SIGKILL)

    def close(self) -> None:
        """End what still runs."""
        for program in self._started:
            if program.poll() is None:
                program.kill()
                program.communicate()

    def _running(self, engine: Any, study: str) -> set[int]:
        try:
            with engine.connect() as connection:
                names = [row[0].strip('"') for row in connection.execute(text(_RUNNING), {"study": study})]
        except exc.SQLAlchemyError:  # the tables are being made, or the server starts
            return set()
        return {int(name.rpartition(":")[2]) for name in names}
