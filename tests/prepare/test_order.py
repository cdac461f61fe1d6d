"""Events in order: every way of sorting agrees with NumPy's, ties keep their order, marks go along."""

from __future__ import annotations

import numpy as np
import pytest

from gru4rec.prepare import order
from gru4rec.prepare.order import in_order


@pytest.mark.parametrize("time_type", [np.int64, np.float64])
@pytest.mark.parametrize("with_marks", [False, True])
@pytest.mark.parametrize(("short", "long"), [(32, 100_000), (0, 100_000), (32, 50), (10_000, 100_000)])
def test_order_is_that_of_numpy(
    time_type: type, with_marks: bool, short: int, long: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Groups of 1 to some hundred rows, of which a part is in order already; many equal times and items."""
    monkeypatch.setattr(order, "_LONG", long)
    if short != order._SHORT:  # compiled in: the plain loop runs instead
        monkeypatch.setattr(order, "_SHORT", short)
        monkeypatch.setattr(order, "_sort_groups", getattr(order._sort_groups, "py_func", order._sort_groups))
    rng = np.random.default_rng(5)
    group = np.repeat(np.arange(40, dtype=np.int32), rng.integers(0, 200, 40))
    rng.shuffle(group)
    n = len(group)
    time, item = np.sort(rng.integers(0, 50, n)).astype(time_type), rng.integers(0, 4, n, dtype=np.int32)
    time[n // 2 :] = rng.permutation(time[n // 2 :])
    marks = rng.random(n) < 0.5 if with_marks else None
    wanted = np.lexsort((item, time, group))
    found_time, found_item, found_marks, offsets = in_order(group, time, item, marks, n_groups=41)
    np.testing.assert_array_equal(found_time, time[wanted])
    np.testing.assert_array_equal(found_item, item[wanted])
    np.testing.assert_array_equal(np.diff(offsets), np.bincount(group, minlength=41))
    if marks is None:
        assert found_marks is None
    else:
        np.testing.assert_array_equal(found_marks, marks[wanted])
