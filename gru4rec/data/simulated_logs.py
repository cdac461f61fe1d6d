"""What one does with a simulated shop's log: split it by time, write it, shuffle it, and compute the optimum on it."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from gru4rec.data.simulate import DAY_S, Ints, Shop
from gru4rec.errors import ConfigError, DataError

CHUNK_CELLS = 2_000_000  # probabilities held at once, 16 MB


class LogColumns(NamedTuple):
    """A log as three int64 arrays of equal length, in time order."""

    session_id: Ints
    item_id: Ints
    time: Ints


@dataclass(frozen=True, eq=False)
class Split:
    """The four logs of a project that trains, tunes and tests, and what they leave out.

    Attributes:
        train: Everything before the test period.
        test: Sessions that begin in the test period.
        train_tr: The part of ``train`` to fit while tuning.
        train_valid: The sessions at the end of ``train`` to measure on while tuning.
        n_unknown: By name of log, events dropped because their item is not in the log's training part.
        n_short: By name of log, events dropped because they were the only one left of their session.
    """

    train: LogColumns
    test: LogColumns
    train_tr: LogColumns
    train_valid: LogColumns
    n_unknown: dict[str, int]
    n_short: dict[str, int]


def split_by_time(
    session_id: npt.ArrayLike, item_id: npt.ArrayLike, time: npt.ArrayLike, *, test_days: float = 2.0
) -> Split:
    """Split a log at ``test_days`` before its end, and its training part once more, ``test_days`` earlier.

    A session belongs to the side its first event is on; its events after the cut are no training data.

    Args:
        session_id: Integers (n_events,).
        item_id: Integers (n_events,).
        time: Seconds (n_events,), in any order; equal times keep the order given.
        test_days: Length of the test and of the validation period, in days.

    Returns:
        The four logs, with the number of events dropped.

    Raises:
        ConfigError: One of the four logs is empty.
    """
    columns = [np.asarray(column, dtype=np.int64) for column in (session_id, item_id, time)]
    order = np.argsort(columns[2], kind="stable")
    whole = LogColumns(*(column[order] for column in columns))
    ends = whole.time[-1:]
    parts: dict[str, LogColumns] = {}
    n_unknown: dict[str, int] = {}
    n_short: dict[str, int] = {}
    for n_periods, early, late in ((1, "train", "test"), (2, "train_tr", "train_valid")):
        cut = ends - n_periods * test_days * DAY_S
        _, first_event, session = np.unique(whole.session_id, return_index=True, return_inverse=True)
        is_late = whole.time[first_event][session] >= cut
        parts[early], n_short[early] = _drop_short(_keep(whole, whole.time < cut))
        known = np.isin(whole.item_id, parts[early].item_id)
        n_unknown[late] = int((is_late & ~known).sum())
        parts[late], n_short[late] = _drop_short(_keep(whole, is_late & known))
        whole = parts[early]
    if empty := [name for name, part in parts.items() if not len(part.time)]:
        span_days = (columns[2].max() - columns[2].min()) / DAY_S if len(order) else 0.0
        raise ConfigError(
            f"test_days={test_days} in split_by_time leaves no events for {', '.join(empty)}: the log spans "
            f"{span_days:.1f} days. Take a test_days above 0 and well below half of that."
        )
    return Split(**parts, n_unknown=n_unknown, n_short=n_short)


def _keep(log: LogColumns, mask: npt.NDArray[np.bool_]) -> LogColumns:
    return LogColumns(*(column[mask] for column in log))


def _drop_short(log: LogColumns) -> tuple[LogColumns, int]:
    _, session, n_clicks = np.unique(log.session_id, return_inverse=True, return_counts=True)
    long = n_clicks[session] > 1
    return _keep(log, long), int((~long).sum())


def shuffle_items(item_id: npt.ArrayLike, *, seed: int) -> Ints:
    """Permute the items over all events: popularity stays, every trace of sequence goes.

    A model that beats popularity on such a log sees something it should not.

    Example:
        >>> sorted(shuffle_items([5, 5, 7, 9], seed=0).tolist())
        [5, 5, 7, 9]
    """
    return np.random.default_rng(seed).permutation(np.asarray(item_id, dtype=np.int64))


def optimal_metrics(
    shop: Shop,
    session_id: npt.ArrayLike,
    item_id: npt.ArrayLike,
    time: npt.ArrayLike,
    *,
    train_item_ids: npt.ArrayLike,
    cutoff: Sequence[int] = (20,),
) -> dict[str, dict[int, float]]:
    """Compute the best Recall@k and MRR@k that any recommender can reach on a log of the shop.

    The best list ranks the items by their probability to be next, given the session so far and the day. As the
    lists to beat hold training items only, and so does the log, the probabilities are conditioned on that.

    Args:
        shop: The shop the log comes from.
        session_id: Integers (n_events,). Every event of a session but its first is a target.
        item_id: Integers (n_events,). Whole sessions: where an item unknown to training was dropped, the history
            lacks it here as it does for the model, and the result is close instead of exact.
        time: Seconds (n_events,); within a session, equal times keep the order given.
        train_item_ids: The training vocabulary; repeated ids are fine, so the item column of the training log will do.
        cutoff: List lengths k.

    Returns:
        By name, then by k: ``expected_recall`` and ``expected_mrr``, the mean over targets of what the best list
        scores in expectation; ``realised_recall`` and ``realised_mrr``, what it scores on the clicks that came.

    Raises:
        ConfigError: A cutoff below 1, or none.
        DataError: An item is not in the shop or not in ``train_item_ids``, or no session has two events.
    """
    if not len(cutoff) or min(cutoff) < 1:
        raise ConfigError(
            f"cutoff={tuple(cutoff)} in optimal_metrics holds no list length. Give one or more, from 1 up."
        )
    rules = shop.rules
    vocabulary = np.unique(rules.index_of(train_item_ids))
    session, when = np.asarray(session_id, dtype=np.int64), np.asarray(time, dtype=np.int64)
    order = np.lexsort((when, session))
    session, when, item = session[order], when[order], rules.index_of(item_id)[order]
    if n_unknown := int((~np.isin(item, vocabulary)).sum()):
        raise DataError(
            f"{n_unknown} of the {len(item)} events given to optimal_metrics have an item that is not in "
            "train_item_ids. Drop them first, as split_by_time does."
        )
    k_max = min(max(cutoff), len(vocabulary))
    total_K, rank_chunks = np.zeros(k_max), []
    for target, history_BJ in _targets(session, item, rules.settings.n_items):
        p_BV = rules.probabilities(history_BJ, rules.day_of(when[target]))[:, vocabulary]
        p_BV /= p_BV.sum(axis=1, keepdims=True)
        best_BK = -np.sort(np.partition(-p_BV, k_max - 1, axis=1)[:, :k_max], axis=1)
        total_K += best_BK.sum(axis=0)
        column_B = np.searchsorted(vocabulary, item[target])
        of_target_B1 = np.take_along_axis(p_BV, column_B[:, None], axis=1)
        tied_before_BV = (p_BV == of_target_B1) & (np.arange(len(vocabulary)) < column_B[:, None])
        rank_chunks.append(1 + ((p_BV > of_target_B1) | tied_before_BV).sum(axis=1))
    if not rank_chunks:
        raise DataError("no session of the log given to optimal_metrics has two events. Give a longer log.")
    rank = np.concatenate(rank_chunks)
    hits_K = np.bincount(rank, minlength=k_max + 1)[1 : k_max + 1]
    result: dict[str, dict[int, float]] = {}
    for name, of_rank_K in (("expected", total_K / len(rank)), ("realised", hits_K / len(rank))):
        result[f"{name}_recall"] = {k: float(of_rank_K[:k].sum()) for k in cutoff}
        result[f"{name}_mrr"] = {k: float((of_rank_K / np.arange(1, k_max + 1))[:k].sum()) for k in cutoff}
    return result


def _targets(session: Ints, item: Ints, n_items: int) -> Iterator[tuple[Ints, Ints]]:
    """Yield positions of targets of equal history length J, with their histories (B, J), in chunks."""
    starts = np.flatnonzero(np.diff(session, prepend=session[:1] - 1))
    click = np.arange(len(session)) - np.repeat(starts, np.diff(starts, append=len(session)))
    n_rows = max(1, CHUNK_CELLS // n_items)
    for j in range(1, click.max(initial=0) + 1):
        target = np.flatnonzero(click == j)
        for rows in np.split(target, np.arange(n_rows, len(target), n_rows)):
            yield rows, item[rows[:, None] - np.arange(j, 0, -1)]


def write_logs(shop: Shop, folder: str | os.PathLike[str], *, test_days: float = 2.0) -> dict[str, Path]:
    """Write train.tsv, test.tsv, train_tr.tsv and train_valid.tsv: TAB separated, SessionId ItemId Time.

    Args:
        shop: The shop whose log to split and write.
        folder: Where to; made if missing. A file there is replaced whole or not at all.
        test_days: As in ``split_by_time``.

    Returns:
        The paths by name: ``train``, ``test``, ``train_tr``, ``train_valid``.

    Raises:
        ConfigError: As in ``split_by_time``.
        DataError: A file cannot be written.
    """
    split = split_by_time(shop.session_id, shop.item_id, shop.time, test_days=test_days)
    paths = {name: Path(folder) / f"{name}.tsv" for name in ("train", "test", "train_tr", "train_valid")}
    for name, path in paths.items():
        partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with open(partial, "w", encoding="ascii", newline="\n") as file:
                file.write("SessionId\tItemId\tTime\n")
                columns = (column.tolist() for column in getattr(split, name))
                file.writelines(f"{s}\t{i}\t{t}\n" for s, i, t in zip(*columns, strict=True))
            os.replace(partial, path)
        except OSError as error:
            raise DataError(
                f"cannot write {path}: {error.strerror or error}. Choose a folder that can be written to, on a disk "
                "with room."
            ) from error
        finally:
            with contextlib.suppress(OSError):
                partial.unlink()
    return paths
