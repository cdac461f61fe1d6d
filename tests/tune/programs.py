"""Searches as programs of their own, whose workers a test kills."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from conftest import ROOT
from sqlalchemy import create_engine, exc, text
from tune.small_shop import words

LONG = "n_epochs=4,n_sample=16,batch_size=16"

_RUNNING = """SELECT worker.value_json, place.value_json FROM trials JOIN studies USING (study_id)
JOIN trial_user_attributes AS worker ON worker.trial_id = trials.trial_id AND worker.key = 'worker'
JOIN trial_user_attributes AS place ON place.trial_id = trials.trial_id AND place.key = 'place'
JOIN trial_user_attributes AS drawn ON drawn.trial_id = trials.trial_id AND drawn.key = 'settings'
WHERE trials.state = 'RUNNING' AND (:study = '' OR studies.study_name = :study)"""


class Programs:
    """Starts programs, and ends those that a failed test leaves."""

    def __init__(self) -> None:
        self._started: list[subprocess.Popen[str]] = []
        self._seen: set[str] = set()

    def start(
        self, shop: Path, run_dir: Path | None, *flags: Any, fixed: str, environment: Mapping[str, str] | None = None
    ) -> subprocess.Popen[str]:
        """Start a search."""
        command = [sys.executable, str(ROOT / "paropt.py"), *words(shop, run_dir, *flags, fixed=fixed)]
        return self.start_command(command, cwd=ROOT, env={**os.environ, **(environment or {})})

    def start_command(self, command: Sequence[str], **options: Any) -> subprocess.Popen[str]:
        """Start a command line."""
        pipes: Any = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        self._started.append(subprocess.Popen(command, **pipes, **options))
        return self._started[-1]

    def wait_for_worker(self, storage: str, study: str = "") -> int:
        """Wait for a trial that runs, with all settings drawn, in a worker not seen before; return its process.

        Its place is a new one too: settings whose worker is lost three times count as failed.
        """
        is_file = storage.startswith("sqlite")
        engine = create_engine(storage.replace("postgresql:", "postgresql+psycopg:"))
        try:
            for _ in range(600):
                if not is_file or Path(storage.removeprefix("sqlite:///")).exists():
                    fresh = [each for each in self._running(engine, study) if not self._seen & set(each)]
                    if fresh:
                        self._seen |= set(min(fresh))
                        return int(min(fresh)[0].rpartition(":")[2])
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

    def _running(self, engine: Any, study: str) -> list[tuple[str, str]]:
        """Return the worker and the place of each trial that runs."""
        try:
            with engine.connect() as connection:
                rows = connection.execute(text(_RUNNING), {"study": study}).all()
        except exc.SQLAlchemyError:  # the tables are being made, or the server starts
            return []
        return [(worker.strip('"'), f"{study} place {place}") for worker, place in rows]
