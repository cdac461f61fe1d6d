"""Top-k against sorting the whole row."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from gru4rec.serve.topk import top_k

rows = st.lists(st.sampled_from([-2.0, -0.0, 0.0, 0.5, 1.0, 3.0]), min_size=1, max_size=60)


@given(rows, st.integers(1, 70), st.sets(st.integers(0, 59)))
def test_top_k_equals_sorting_by_score_then_index(scores: list[float], k: int, excluded: set[int]) -> None:
    allowed = [idx for idx in range(len(scores)) if idx not in excluded]
    expected = sorted(allowed, key=lambda idx: (-scores[idx], idx))[:k]
    excluded_idx = np.array([idx for idx in sorted(excluded) if idx < len(scores)] * 2, dtype=np.int64)
    assert top_k(np.array(scores, dtype=np.float32), k, excluded_idx=excluded_idx).tolist() == expected


def test_top_k_without_exclusion_returns_all_where_k_is_the_number_of_items() -> None:
    assert top_k(np.array([1.0, 2.0, 2.0]), 3).tolist() == [1, 2, 0]
