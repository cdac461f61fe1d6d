"""The folder of a training run: what is where, what was asked for, and whether a run may go on in it."""

from __future__ import annotations

import hashlib
import importlib.metadata
import importlib.util
import json
import os
import platform
import socket
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import numpy as np
from filelock import FileLock, Timeout

from gru4rec import __version__
from gru4rec.data.session_map import ids_as_bytes
from gru4rec.data.sessions import Sessions
from gru4rec.errors import ConfigError, DataError
from gru4rec.whole import write_whole

RunStatus = Literal["running", "finished", "interrupted", "failed", "diverged"]

FORMAT_VERSION = 1

_ADVICE = "Free some room, or name another folder in --run-dir"
_FREE = {"n_epochs", "patience", "log_every", "source", "command", "processes"}
"""What may change when a run goes on: it decides no number, how many epochs there are, or the last bits."""
_LOGS = {"train": "training log", "validation": "validation log (--validate)"}


class RunFolder:
    """A run's folder, which this process alone writes to.

    Args:
        path: Made where it is missing.
        config: What decides the run's numbers; a run that goes on must ask for the same, epochs aside.
        resume: Whether to go on with a run that is there; one that is not begins.

    Attributes:
        path: The folder.
        config: What ``config.json`` holds.
        is_new: Whether there was no run in it before.
        is_ours: Whether this process writes to it.

    Raises:
        ConfigError: It holds another run, or something else, or another process trains in it.
        DataError: It cannot be made or written to.
    """

    is_ours = True

    def __init__(self, path: str | Path, config: Mapping[str, Any], *, resume: bool) -> None:
        self.path = Path(path)
        try:
            before = self._config_before(resume=resume)
        except OSError as error:
            raise DataError(f"cannot look into {self.path}: {error.strerror}. {_ADVICE}") from None
        if before is not None:
            self._check_same(before, config)
        self.is_new = before is None
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            self._lock = FileLock(self.path / ".lock")
            self._lock.acquire(timeout=0)
        except Timeout:
            raise ConfigError(f"another process trains in {self.path}. Wait for it, or name another folder") from None
        except OSError as error:
            raise DataError(f"cannot write to {self.path}: {error.strerror}. {_ADVICE}") from None
        self.config = {
            "format_version": FORMAT_VERSION,
            **json.loads(json.dumps(config)),
            "versions": versions(),
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "started": _now() if before is None else before.get("started", _now()),
        }
        self.set_status("running")

    @property
    def checkpoint(self) -> Path:
        """The newest checkpoint."""
        return self.path / "checkpoints" / "last.safetensors"

    @property
    def best(self) -> Path:
        """The model of the epoch with the best validation metric."""
        return self.path / "checkpoints" / "best.gru4rec"

    @property
    def metrics(self) -> Path:
        """A line for every epoch and every so many steps."""
        return self.path / "metrics.jsonl"

    @property
    def model(self) -> Path:
        """The model at the end."""
        return self.path / "model.gru4rec"

    @property
    def report(self) -> Path:
        """The page about the run."""
        return self.path / "report.html"

    def set_status(self, status: RunStatus) -> None:
        """Note in ``config.json`` how the run stands.

        Raises:
            DataError: It cannot be written.
        """
        self.config |= {"status": status, "written": _now()}
        text = json.dumps(self.config, indent=1) + "\n"
        write_whole(self.path / "config.json", lambda path: path.write_text(text, encoding="utf-8"), advice=_ADVICE)

    def close(self) -> None:
        """Let other processes train in the folder."""
        self._lock.release()

    def _config_before(self, *, resume: bool) -> dict[str, Any] | None:
        config = self.path / "config.json"
        if not config.exists():
            if self.path.exists() and (not self.path.is_dir() or any(_contents(self.path))):
                raise ConfigError(f"{self.path} is there and holds no run. Name another folder in --run-dir")
            return None
        if not resume:
            raise ConfigError(f"{self.path} holds a run. Add --resume to go on with it, or name another folder")
        try:
            before = json.loads(config.read_text(encoding="utf-8"))
            version = before["format_version"]
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise ConfigError(f"cannot read {config}: {error}. Name another folder in --run-dir") from None
        if version != FORMAT_VERSION:
            raise ConfigError(f"{config} has version {version}, and this program reads {FORMAT_VERSION}. Train anew")
        return dict(before)

    def _check_same(self, before: Mapping[str, Any], config: Mapping[str, Any]) -> None:
        asked_for = _flat(json.loads(json.dumps(config)))
        had = _flat({name: value for name, value in before.items() if name in config})
        free = set(_FREE)
        if had.get("processes", 1) != asked_for.get("processes", 1):  # each has its own threads and its own GPU
            free.add("threads")
            for of in (had, asked_for):
                of["device"] = str(of.get("device")).partition(":")[0]
        for name in (*asked_for, *(name for name in had if name not in asked_for)):
            was, asked = had.get(name), asked_for.get(name)
            log = name.partition(".")[0]
            if was != asked and log in _LOGS and name != f"{log}.source":
                was_log = _log_of(before, log)
                asked_log = _log_of(config, log, "other " if name == f"{log}.digest" else "")
                raise ConfigError(
                    f"the run in {self.path} has {was_log} for its {_LOGS[log]}, and {asked_log} is asked for: "
                    "it would not go on as the same run. Give the log of before, or another folder"
                )
            if was != asked and name.split(".")[-1] not in free:
                raise ConfigError(
                    f"the run in {self.path} has {name}={was!r}, and {asked!r} is asked for: it would not go on as the "
                    "same run. Give the settings of before, or another folder"
                )


def fingerprint(sessions: Sessions) -> dict[str, Any]:
    """Return what tells a log from another: counts, and a digest of its events and ids."""
    digest = hashlib.blake2b(digest_size=16)
    for array in (sessions.item_idx, sessions.offsets):
        digest.update(np.ascontiguousarray(array).data)
    digest.update(ids_as_bytes(sessions.items))
    return {
        "source": sessions.source,
        "n_events": sessions.n_events,
        "n_sessions": sessions.n_sessions,
        "n_items": sessions.items.n_items,
        "digest": digest.hexdigest(),
    }


def versions() -> dict[str, str]:
    """Return the versions that numbers depend on."""
    names = ("torch", "numpy", "numba", "safetensors")
    found = {name: importlib.metadata.version(name) for name in names if importlib.util.find_spec(name)}
    return {"gru4rec": __version__, "python": platform.python_version(), **found}


def _contents(folder: Path) -> list[Path]:
    return [path for path in folder.iterdir() if path.name != ".lock"]


def _log_of(config: Mapping[str, Any], name: str, which: str = "") -> str:
    log = config.get(name)
    return f"{log['source']} of {log['n_events']:,} {which}events" if isinstance(log, dict) else "none"


def _flat(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in config.items():
        flat |= _flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {prefix + name: value}
    return flat


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
