"""Draws through the guide table: what ``searchsorted`` finds, whatever the distribution, the point and the guide."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gru4rec.data import draws

BELOW_ONE = np.nextafter(1.0, 0.0)


def expected(cumulative: np.ndarray, uniform: np.ndarray) -> np.ndarray:
    points = uniform * cumulative[-1]
    return np.minimum(np.searchsorted(cumulative, points, side="right"), len(cumulative) - 1)


def found(cumulative: np.ndarray, uniform: np.ndarray) -> np.ndarray:
    items = np.full(len(uniform), -1, dtype=np.int32)
    draws.look_up(cumulative)(uniform, items)
    return items


def with_neighbours(points: np.ndarray) -> np.ndarray:
    """Numbers of [0, 1] that are as near to the given ones as float64 can say."""
    near = np.concatenate([points, np.nextafter(points, 0.0), np.nextafter(points, 2.0)])
    return np.clip(near, 0.0, 1.0)


supports = st.lists(st.integers(1, 10**6) | st.sampled_from([1, 2, 10**9, 10**14]), min_size=1, max_size=60)


@pytest.mark.parametrize("have_numba", [True, False])
@given(support=supports, alpha=st.sampled_from([0.0, 0.3, 0.5, 0.75, 1.0]), seed=st.integers(0, 9))
def test_draws_equal_searchsorted_also_on_and_beside_every_border(
    have_numba: bool, support: list[int], alpha: float, seed: int
) -> None:
    cumulative = np.cumsum(np.array(support, dtype=np.float64) ** alpha)
    parts = np.arange(len(support) + 1) / len(support)
    uniform = np.concatenate(
        [
            np.random.default_rng(seed).random(50),
            with_neighbours(cumulative / cumulative[-1]),  # where an item ends
            with_neighbours(parts),  # where a part of the guide table ends
        ]
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(draws, "HAVE_NUMBA", have_numba and draws.HAVE_NUMBA)
        np.testing.assert_array_equal(found(cumulative, uniform), expected(cumulative, uniform))


@pytest.mark.parametrize("have_numba", [True, False])
@given(support=supports, n_parts=st.integers(1, 4), seed=st.integers(0, 9))
def test_parts_of_a_distribution_find_what_the_whole_does(
    have_numba: bool, support: list[int], n_parts: int, seed: int
) -> None:
    cumulative = np.cumsum(np.array(support, dtype=np.float64))
    borders = cumulative / cumulative[-1]
    uniform = np.concatenate([np.random.default_rng(seed).random(50), with_neighbours(borders)])
    right = expected(cumulative, uniform)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(draws, "HAVE_NUMBA", have_numba and draws.HAVE_NUMBA)
        for items in np.array_split(np.arange(len(support)), min(n_parts, len(support))):
            below = float(cumulative[items[0] - 1]) if items[0] else 0.0
            in_part = np.full(len(uniform), -1, dtype=np.int32)
            part = cumulative[items[0] : items[-1] + 1]
            draws.look_up(part, below=below, total=cumulative[-1])(uniform, in_part)
            np.testing.assert_array_equal(in_part + items[0], np.clip(right, items[0], items[-1]))


@given(supports, st.integers(0, 9))
def test_walk_mends_whatever_the_guide_says(support: list[int], seed: int) -> None:
    cumulative = np.cumsum(np.array(support, dtype=np.float64))
    rng = np.random.default_rng(seed)
    uniform, items = rng.random(100), np.empty(100, dtype=np.int32)
    guide = rng.integers(0, len(support), size=7).astype(np.int32)
    draws._walk(cumulative, guide, 0.0, cumulative[-1], uniform, items)
    np.testing.assert_array_equal(items, expected(cumulative, uniform))


def test_one_item_is_drawn_always() -> None:
    assert found(np.array([0.3]), np.array([0.0, 0.5, BELOW_ONE, 1.0])).tolist() == [0, 0, 0, 0]


@pytest.mark.parametrize("heaviest", [0, 50_000, 99_999])
def test_one_item_that_nearly_always_comes(heaviest: int) -> None:
    """All others share one part of the guide table: walks as long as there can be, forwards and to the last item."""
    weights = np.ones(100_000)
    weights[heaviest] = 1e12
    cumulative = np.cumsum(weights)
    uniform = with_neighbours(
        np.concatenate([np.random.default_rng(1).random(1000), cumulative[::97] / cumulative[-1]])
    )
    items = found(cumulative, uniform)
    np.testing.assert_array_equal(items, expected(cumulative, uniform))
    assert len(np.unique(items)) > 500, "the rare items are drawn too, so this tests something"


@pytest.mark.parametrize("n_draws", [0, 1, 1023, 1024, 1025, 5000])
def test_every_draw_of_every_block_is_made(n_draws: int) -> None:
    cumulative = np.cumsum(1 / np.arange(1, 5001))
    uniform = np.random.default_rng(2).random(n_draws)
    np.testing.assert_array_equal(found(cumulative, uniform), expected(cumulative, uniform))


def test_numba_is_loaded_by_the_first_draw_and_not_before() -> None:
    code = """
import sys
import numpy as np
from gru4rec.data.negatives import SampleStore
store = SampleStore(np.array([3, 4]), n_sample=2, sample_alpha=1.0, rng=np.random.default_rng(0), cache_size=2)
assert "numba" not in sys.modules
store.next()
print("numba" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == str(draws.HAVE_NUMBA)
