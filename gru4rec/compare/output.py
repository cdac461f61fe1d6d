"""What a comparison leaves: results.json, the events of every model as Parquet, and the terminal's table."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from pyarrow import parquet

from gru4rec.compare.slices import targets_of
from gru4rec.compare.verdict import told_apart
from gru4rec.data.sessions import Sessions
from gru4rec.errors import ConfigError, DataError
from gru4rec.evaluate.evaluator import Evaluation
from gru4rec.evaluate.ranks import TieMode
from gru4rec.whole import write_whole

_STEM_BYTES = 200
"""Of a file's name, of which systems allow 255; what is written beside it has a longer one."""


def write_results(results: dict[str, Any], path: Path) -> None:
    """Write results.json whole or not at all.

    Raises:
        DataError: The path cannot be written.
    """
    _write(path, lambda partial: partial.write_text(json.dumps(results, indent=1), encoding="utf-8"))


def write_events(name: str, evaluation: Evaluation, ties: TieMode, seed: int, folder: Path) -> Path:
    """Write a row a target: where it is, how it was ranked, what was listed; return the file's path.

    Sessions are numbered from 0 in the order of their first events.

    Args:
        name: Of the file, made fit for one.
        evaluation: With lists.
        ties: Tie mode of the column ``rank``; ``n_higher``, ``n_equal`` and ``n_equal_before`` decide all modes.
        seed: Of the mode ``tiebreaking``.
        folder: Made where it is missing.

    Raises:
        DataError: The folder cannot be written to.
    """
    check_folder(folder)
    test, counts, lists_TK = evaluation.sessions, evaluation.counts, evaluation.lists_TK
    assert lists_TK is not None
    position, length, target, session = targets_of(test)
    path = folder / _event_file(name)
    table = pa.table(
        {
            "session": session,
            "session_start": np.asarray(test.start_time)[session],
            "n_clicks_before": position,
            "session_length": length,
            "item_id": test.items.item_ids.take(pa.array(target)),
            "n_higher": counts.n_higher,
            "n_equal": counts.n_equal,
            "n_equal_before": counts.n_equal_before,
            "rank": counts.ranks(ties, seed=seed),
            "list": _lists_of_ids(lists_TK, test),
        }
    )
    _write(path, lambda partial: parquet.write_table(table, partial, compression="zstd"))
    return path


def _event_file(name: str) -> str:
    stem = re.sub(r"[^\w.-]+", "_", name).encode()[:_STEM_BYTES].decode(errors="ignore").strip("._") or "model"
    return f"{stem}.parquet"


def check_event_names(names: Sequence[str], *, advice: str) -> None:
    """Make sure that events of each name get a file of their own.

    Raises:
        ConfigError: Two names make the same file name.
    """
    first_of: dict[str, str] = {}
    for name in names:
        file_name = _event_file(name)
        if file_name.lower() in first_of:
            other = first_of[file_name.lower()]
            raise ConfigError(f"events of {other!r} and {name!r} would be one file, {file_name}. {advice}")
        first_of[file_name.lower()] = name


def _lists_of_ids(lists_TK: np.ndarray, test: Sessions) -> pa.Array:
    """Turn item indices (T, K) into lists of ids."""
    ids = test.items.item_ids.take(pa.array(lists_TK.reshape(-1)))
    ids = ids.combine_chunks() if isinstance(ids, pa.ChunkedArray) else ids
    return pa.ListArray.from_arrays(pa.array(np.arange(0, lists_TK.size + 1, lists_TK.shape[1], dtype=np.int32)), ids)


def check_folder(folder: Path) -> None:
    """Make a folder, and find out whether it can be written to.

    Raises:
        DataError: It cannot.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / f".{os.getpid()}.part"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise DataError(f"cannot write to {folder}: {error.strerror}. Give another folder") from None


def _write(path: Path, write: Callable[[Path], object]) -> None:
    write_whole(path, write, advice="Free some space, or give another folder")


def table_lines(results: dict[str, Any]) -> Iterator[str]:
    """Yield the leaderboard as lines of text, best first; a star is a significant distance from the best."""
    metric, k = results["protocol"]["primary"]
    done = [model for model in results["models"] if model["error"] is None]
    done.sort(key=lambda model: -model["metrics"][metric][str(k)]["value"])
    shown = list(dict.fromkeys((metric, "recall", "mrr", "ndcg")))
    width = max([len(model["name"]) for model in results["models"]] + [5])
    yield (
        f"{'model':<{width}}  " + "  ".join(f"{f'{name}@{k}':<22}" for name in shown) + "  coverage  train s   events/s"
    )
    for model in done:
        cells = []
        for name in shown:
            one = model["metrics"][name][str(k)]
            cells.append(f"{one['value']:.4f} [{one['low']:.4f} {one['high']:.4f}]".ljust(22))
        cost = model["cost"]
        train_s = "-" if cost["train_s"] is None else f"{cost['train_s']:.1f}"
        star = "*" if _differs(results, model["name"], metric) else " "
        yield (
            f"{model['name']:<{width}}{star} " + "  ".join(cells)
            + f"  {model['lists']['coverage'][str(k)]:8.3f}  {train_s:>7}  {cost['targets_per_s']:9,.0f}"
        )  # fmt: skip
    for model in results["models"]:
        if model["error"] is not None:
            yield f"{model['name']:<{width}}  failed: {model['error']}"


def _differs(results: dict[str, Any], name: str, metric: str) -> bool:
    return any(
        pair["b"] == name and pair["metric"] == metric and told_apart(results, pair["p_adjusted"])
        for pair in results["pairs"]
    )
