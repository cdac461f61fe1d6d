"""Rows that stand more than once. The other checks see each of them once, so that one fault is told once."""

from __future__ import annotations

import numpy as np

from gru4rec.doctor.findings import Checked, Finding, count, percent
from gru4rec.doctor.ordered import TIED_FRAC, OrderedLog

WHOLE_FILE_FRAC = 0.9
"""Share of distinct rows that stand equally often, twice or more, above which the whole file was written again."""

WARN_FRAC = 0.01
"""Share of surplus rows from which on they are worth a warning. Double clicks within a tick of the clock are
fewer."""


def check_duplicates(ordered: OrderedLog) -> tuple[Checked, OrderedLog]:
    """Count rows that are the same in session, item and time as another.

    Returns:
        What was found, and the log with each of its rows once. Where most times in a session are equal, who comes
        back to an item makes equal rows too, so that only a whole file that stands twice counts.
    """
    surplus_E, n_copies_D = _surplus(ordered)
    n_surplus = int(np.count_nonzero(surplus_E))
    frac = n_surplus / ordered.n_events
    numbers = {"n_identical_rows": n_surplus, "identical_rows_frac": frac}
    copies = int(np.median(n_copies_D))
    if copies > 1 and float((n_copies_D == copies).mean()) >= WHOLE_FILE_FRAC:
        finding = Finding(
            "duplicated-file", "error",
            f"every row stands {copies} times: {n_surplus:,} of {ordered.n_events:,} rows are copies. The file was "
            "written or joined twice; keep each row once",
        )  # fmt: skip
        return Checked(numbers, [finding]), ordered.only(~surplus_E)
    unique = ordered.only(~surplus_E)
    if not n_surplus or unique.tied_frac > TIED_FRAC:
        return Checked(numbers), ordered
    finding = Finding(
        "identical-rows", "warning" if frac >= WARN_FRAC else "note",
        f"{count(n_surplus, 'row')} ({percent(frac)}) repeat session, item and time of another, first in row "
        f"{_first_row(ordered, surplus_E)}. Keep each once, unless one click can be two events",
    )  # fmt: skip
    return Checked(numbers, [finding]), unique


def _first_row(ordered: OrderedLog, surplus_E: np.ndarray) -> str:
    return f"{int(ordered.row_E[surplus_E].min()) + 1:,}"


def _surplus(ordered: OrderedLog) -> tuple[np.ndarray, np.ndarray]:
    """Find copies; only events that share session and time with a neighbour can be some.

    Returns:
        surplus: Bool (E,), the event is a copy of an earlier row.
        n_copies: Int64 (D,), how often each distinct row stands.
    """
    tied = (np.diff(ordered.session_E) == 0) & (np.diff(ordered.time_E) == 0)
    candidate = np.flatnonzero(np.r_[False, tied] | np.r_[tied, False])
    session, time, item = (column[candidate] for column in (ordered.session_E, ordered.time_E, ordered.item_E))
    order = np.lexsort((item, time, session))
    new = np.ones(len(order), dtype=bool)
    new[1:] = np.any([np.diff(column[order]) != 0 for column in (session, time, item)], axis=0)
    surplus_E = np.zeros(ordered.n_events, dtype=bool)
    surplus_E[candidate[order[~new]]] = True
    n_copies_C = np.diff(np.r_[np.flatnonzero(new), len(new)]) if len(new) else np.empty(0, dtype=np.int64)
    n_single = ordered.n_events - len(candidate)
    return surplus_E, np.r_[n_copies_C, np.ones(n_single, dtype=np.int64)]
