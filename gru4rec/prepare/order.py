"""Events in order: grouped by session or user, then by time, then by item; equal events stay in file order.

Groups are dealt out by counting, one pass a column; within a group only what is out of order is sorted. On 100 million
events that is several times faster than a sort of three columns, and needs one copy of them. Loads Numba.
"""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from gru4rec.jit import HAVE_NUMBA, compiled_exactly

_SHORT = 32
"""Groups up to this length are sorted by insertion."""

_LONG = 100_000
"""Longer groups are left to NumPy, which sorts them several times faster than a compiled merge sort."""

_MAX_THREADS = 4
"""Beyond that the threads wait for memory."""


def in_order(
    group: np.ndarray, time: np.ndarray, item: np.ndarray, marks: np.ndarray | None, *, n_groups: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray | None, np.ndarray]:
    """Order events by group, time and item.

    Args:
        group: Int32 (n,), 0 to n_groups - 1.
        time: Int64 or float64 (n,).
        item: Int32 (n,).
        marks: Bool (n,), carried along; None where there are none.
        n_groups: Number of groups.

    Returns:
        time, item and marks in order, and int64 (n_groups + 1,), where each group begins and ends.
    """
    offsets = np.zeros(n_groups + 1, dtype=np.int64)
    np.cumsum(np.bincount(group, minlength=n_groups), out=offsets[1:])
    if not HAVE_NUMBA:
        order = np.lexsort((item, time, group))
        return time[order], item[order], None if marks is None else marks[order], offsets
    columns = [time, item] if marks is None else [time, item, marks]
    dealt = [np.empty_like(column) for column in columns]
    with ThreadPoolExecutor(min(_MAX_THREADS, os.cpu_count() or 1)) as pool:
        list(pool.map(lambda column, out: _deal(group, column, offsets[:-1].copy(), out), columns, dealt))
        borders = np.searchsorted(offsets, np.linspace(0, len(group), _MAX_THREADS + 1))
        no_marks = np.zeros(0, dtype=np.bool_)
        given = (dealt[0], dealt[1], no_marks if marks is None else dealt[2])
        list(
            pool.map(
                lambda first, last: _sort_groups(offsets[first : last + 1], *given, _LONG), borders[:-1], borders[1:]
            )
        )
    for group_code in np.flatnonzero(np.diff(offsets) > _LONG).tolist():
        rows = slice(offsets[group_code], offsets[group_code + 1])
        order = np.lexsort((dealt[1][rows], dealt[0][rows]))
        for column in dealt:
            column[rows] = column[rows][order]
    return dealt[0], dealt[1], None if marks is None else dealt[2], offsets


@compiled_exactly
def _deal(group, column, place, out):
    """Put each row's value at the next place of its group."""
    for row in range(len(group)):
        out[place[group[row]]] = column[row]
        place[group[row]] += 1


@compiled_exactly
def _sort_groups(offsets, time, item, marks, longest):
    """Sort each group up to a length by (time, item), in place and stable; most groups are in order already."""
    for group in range(len(offsets) - 1):
        start, stop = offsets[group], offsets[group + 1]
        row = start + 1
        while row < stop and not (
            time[row] < time[row - 1] or (time[row] == time[row - 1] and item[row] < item[row - 1])
        ):
            row += 1
        if row >= stop or stop - start > longest:
            continue
        if stop - start > _SHORT:
            order = np.argsort(item[start:stop], kind="mergesort")
            order = order[np.argsort(time[start:stop][order], kind="mergesort")]
            time[start:stop] = time[start:stop][order]
            item[start:stop] = item[start:stop][order]
            if len(marks):
                marks[start:stop] = marks[start:stop][order]
            continue
        for out_of_order in range(row, stop):
            place = out_of_order
            while place > start and (
                time[place] < time[place - 1] or (time[place] == time[place - 1] and item[place] < item[place - 1])
            ):
                time[place - 1], time[place] = time[place], time[place - 1]
                item[place - 1], item[place] = item[place], item[place - 1]
                if len(marks):
                    marks[place - 1], marks[place] = marks[place], marks[place - 1]
                place -= 1
