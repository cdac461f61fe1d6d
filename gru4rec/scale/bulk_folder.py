"""The folder of an unfinished run in bulk: what it was asked for, the parts that are done, and the file they become.

Each part is there whole or not at all, so a run that was killed goes on with the first part that is missing. Knows
tables, not models.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as papq
from filelock import FileLock, Timeout

from gru4rec.errors import ConfigError, DataError
from gru4rec.whole import write_whole

_MANIFEST, _PARTS, _FINISHED = "manifest.json", "parts", ".finished"
_ADVICE = "Free some space, or give -o another path, and go on with --resume"
_GROUP_BYTES = 32_000_000
"""Size of a row group in memory, from which on it is written."""


class BulkFolder:
    """The parts of an output, beside it.

    Args:
        output: The file that will be written; a folder of files, if it is one or its path ends with a slash.
        asked: What decides the contents of the output; kept as JSON.
        resume: Go on with what is there.

    Attributes:
        path: The folder.
        asked: As given.
        is_new: Whether nothing was there to go on with.

    Raises:
        ConfigError: A run is there and ``resume`` is False, it was asked for something else, another process works at
            it, or the folder is of something else.
        DataError: The folder cannot be written.
    """

    def __init__(self, output: str | Path, asked: Mapping[str, Any], *, resume: bool) -> None:
        self.output, self.asked, self._is_folder = Path(output), asked, names_folder(output)
        if not self.output.name:
            self.output = self.output.resolve()
        self.path = self.output.with_name(f"{self.output.name}.parts")
        before = self._before(resume)
        if before is not None:
            self._check_same(before, json.loads(json.dumps(asked)))
        self.is_new = before is None
        try:
            self.path.mkdir(exist_ok=True)
            self._lock = FileLock(self.path / ".lock")
            self._lock.acquire(timeout=0)
        except Timeout:
            raise ConfigError(f"another process works in {self.path}. Wait for it, or give -o another path") from None
        except OSError as error:
            raise DataError(f"cannot write to {self.path}: {error.strerror}. Give -o another path") from None
        if self.is_new:
            text = json.dumps(asked, indent=1) + "\n"
            write_whole(self.path / _MANIFEST, lambda path: path.write_text(text, encoding="utf-8"), advice=_ADVICE)
        (self.path / _PARTS).mkdir(exist_ok=True)

    def has(self, part: int, n_rows: int) -> bool:
        """Tell whether a part is done; one that a power cut has damaged is not."""
        try:
            return int(papq.read_metadata(_part(self.path, part)).num_rows) == n_rows
        except (OSError, pa.ArrowException):
            return False

    def finish(self, n_parts: int, schema: pa.Schema) -> tuple[int, int]:
        """Make the parts the output, and remove the folder.

        They are joined to a file, a few at a time; a folder of files gets them as they are.

        Returns:
            The numbers of rows, and of those whose lists are the popular items.

        Raises:
            DataError: The output cannot be written, or a part cannot be read; such a part is removed.
        """
        is_popular = [self._read(part, columns=["popular"])["popular"] for part in range(n_parts)]
        counts = sum(map(len, is_popular)), sum(pc.sum(each).as_py() for each in is_popular)
        if self._is_folder:
            self._rename(n_parts)
        else:
            write_whole(self.output, lambda path: self._join(path, n_parts, schema), advice=_ADVICE)
        with contextlib.suppress(OSError):
            (self.path / _MANIFEST).rename(self.path / _FINISHED)  # what a kill leaves from here on is nobody's
        shutil.rmtree(self.path, ignore_errors=True)
        self.close()
        return counts

    def close(self) -> None:
        """Let other processes work in the folder."""
        self._lock.release()

    def discard_unbegun(self) -> None:
        """Remove the folder if no part is done: what is wrong was wrong from the beginning."""
        self.close()
        if not any((self.path / _PARTS).glob("part-*.parquet")):
            shutil.rmtree(self.path, ignore_errors=True)

    def _join(self, path: Path, n_parts: int, schema: pa.Schema) -> None:
        with papq.ParquetWriter(path, schema, **_how_written(schema)) as writer:
            for table in self._groups(n_parts, schema):
                writer.write_table(table, row_group_size=max(1, table.num_rows))

    def _groups(self, n_parts: int, schema: pa.Schema) -> Iterator[pa.Table]:
        waiting: list[pa.Table] = []
        for part in range(n_parts):
            waiting.append(self._read(part, schema=schema))
            if part + 1 == n_parts or sum(table.nbytes for table in waiting) >= _GROUP_BYTES:
                yield pa.concat_tables(waiting)
                waiting = []

    def _read(self, part: int, **options: Any) -> pa.Table:
        path = _part(self.path, part)
        try:
            return papq.read_table(path, partitioning=None, **options)
        except (OSError, pa.ArrowException):
            path.unlink(missing_ok=True)
            raise DataError(f"{path} was damaged. The same command with --resume writes it again") from None

    def _rename(self, n_parts: int) -> None:
        """Give the parts the output's name, all in one move."""
        wanted = {_part(self.path, part) for part in range(n_parts)}
        try:
            for path in set((self.path / _PARTS).iterdir()) - wanted:  # what was half written by one that was killed
                path.unlink()
            (self.path / _PARTS).rename(self.output)  # also where an empty folder is
        except OSError as error:
            raise DataError(f"cannot write {self.output}: {error.strerror}. {_ADVICE}") from None

    def _before(self, resume: bool) -> Any:
        """Return what the run that is there was asked for; None where there is none."""
        if (self.path / _FINISHED).exists():
            shutil.rmtree(self.path, ignore_errors=True)
        manifest = self.path / _MANIFEST
        if not manifest.exists():
            if self.path.exists() and not self._is_unused():
                raise ConfigError(f"{self.path} is there and is of something else. Give -o another path")
            return None
        if not resume:
            raise ConfigError(
                f"{self.path} holds a run that did not come to its end. Add --resume to go on with it, or delete it"
            )
        try:
            return dict(json.loads(manifest.read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError) as error:
            raise ConfigError(f"cannot read {manifest}: {error}. Delete {self.path}, and begin anew") from None

    def _is_unused(self) -> bool:
        """Tell whether the folder holds at most what a run leaves that was killed before it began."""
        return self.path.is_dir() and all(path.name.startswith(".") for path in self.path.iterdir())

    def _check_same(self, before: Mapping[str, Any], asked: Mapping[str, Any]) -> None:
        for name in (*asked, *before):
            if before.get(name) != asked.get(name):
                raise ConfigError(
                    f"the run in {self.path} was begun with {name} {_short(before.get(name))}, and "
                    f"{_short(asked.get(name))} is asked for: the parts would not belong together. Give the model, log "
                    "and options of before, or delete the folder"
                )


def write_part(folder: Path, part: int, table: pa.Table) -> None:
    """Keep a part in a run's folder. Whoever writes it, and however often, it is there whole or not at all.

    Raises:
        DataError: It cannot be written.
    """

    def write(path: Path) -> None:
        papq.write_table(table, path, **_how_written(table.schema))
        with open(path, "rb") as file:
            os.fsync(file.fileno())  # a power cut must not leave a name without what it stands for

    write_whole(_part(folder, part), write, advice=_ADVICE)


def names_folder(output: str | Path) -> bool:
    """Tell whether an output is a folder of files: it is one, or its path ends with a slash."""
    return str(output).endswith(("/", os.sep)) or os.path.isdir(output)


def _part(folder: Path, part: int) -> Path:
    return folder / _PARTS / f"part-{part:07}.parquet"


def _how_written(schema: pa.Schema) -> dict[str, Any]:
    """Return how Parquet is written: scores hardly repeat, so a dictionary of them would be made for nothing."""
    columns = [f"{name}.list.element" if name == "item_ids" else name for name in schema.names if name != "scores"]
    return {"compression": "zstd", "use_dictionary": columns}


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 80 else f"{text[:80]}..."
