"""The negative store draws what it says: chi-squared at small catalogues, no lost item at 20 million."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import chisquare

from gru4rec.data import negatives
from gru4rec.data.negatives import SampleStore
from gru4rec.errors import ConfigError


def store(support: np.ndarray, *, n_sample: int = 64, alpha: float = 0.5, cache_size: int = 10_000, seed: int = 5):
    rng = np.random.default_rng(seed)
    return SampleStore(support, n_sample=n_sample, sample_alpha=alpha, cache_size=cache_size, rng=rng)


@pytest.mark.parametrize("alpha", [0.0, 0.2, 0.5, 1.0])
@pytest.mark.parametrize("seed", [1, 2])
def test_frequencies_fit_support_to_the_alpha(alpha: float, seed: int) -> None:
    support = np.array([1, 2, 5, 17, 40, 90, 400, 3, 3, 1000])
    drawing = store(support, n_sample=1000, alpha=alpha, seed=seed)
    counts = np.bincount(np.concatenate([drawing.next() for _ in range(200)]), minlength=len(support))
    expected = support**alpha / (support**alpha).sum() * 200_000
    assert chisquare(counts, expected).pvalue > 1e-4
    # and the test can fail: the same counts do not fit a slightly different exponent
    wrong = support ** (alpha + 0.05) / (support ** (alpha + 0.05)).sum() * 200_000
    assert chisquare(counts, wrong).pvalue < 1e-4


def test_no_item_of_20_million_has_probability_zero() -> None:
    support = np.ones(20_000_000)
    support[:1000] = 1e6  # popular items first: the rest is added to a large sum
    weights = support**0.75
    drawing = store(support, alpha=0.75, n_sample=2048)
    np.testing.assert_allclose(drawing.probabilities, weights / weights.sum(), rtol=1e-5)
    float32_steps = np.diff(np.cumsum(weights.astype(np.float32)))
    assert (float32_steps == 0).any(), "a float32 sum does lose items here, so this catalogue tests something"
    drawn = drawing.next()
    assert drawn.dtype == np.int32
    assert drawn.max() > 19_000_000


@given(st.integers(0, 700), st.integers(1, 50))
def test_sequence_does_not_depend_on_the_size_of_the_store(cache_size: int, n_sample: int) -> None:
    support = np.arange(1, 30)
    small = store(support, n_sample=n_sample, cache_size=cache_size)
    large = store(support, n_sample=n_sample, cache_size=100_000)
    for _ in range(20):
        np.testing.assert_array_equal(small.next(), large.next())


def test_draws_in_chunks_are_those_of_one_go(monkeypatch: pytest.MonkeyPatch) -> None:
    """Restates the sequence: uniform numbers in one go, scaled, looked up in the cumulative sum."""
    monkeypatch.setattr(negatives, "CHUNK", 100)
    support = np.random.default_rng(3).integers(1, 1000, size=300)
    cumulative = np.cumsum(support**0.5)
    points = np.random.default_rng(5).random(12 * 64) * cumulative[-1]
    expected = np.searchsorted(cumulative, points, side="right").reshape(12, 64)
    drawing = store(support, cache_size=5 * 64)  # each of the stores ends with a part of a chunk
    np.testing.assert_array_equal([drawing.next() for _ in range(12)], expected)


def test_a_refill_needs_little_more_memory_than_its_ids() -> None:
    store(np.array([1])).next()  # loads what draws
    drawing = store(np.arange(1, 1000), n_sample=100, cache_size=2_000_000)
    tracemalloc.start()
    drawing.next()
    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert 8_000_000 < peak_bytes < 8_000_000 + 4_000_000  # ids; 16 MB more would be the uniform numbers in one go


def test_points_on_the_upper_edge_give_the_last_item() -> None:
    class EdgeRng:
        def random(self, n: int) -> np.ndarray:
            return np.full(n, 1.0)  # what rounding of a draw just below 1 can come to

    drawing = SampleStore(np.array([3, 4]), n_sample=2, sample_alpha=1.0, rng=EdgeRng(), cache_size=2)  # type: ignore[arg-type]
    assert drawing.next().tolist() == [1, 1]


def test_negative_store_size_is_refused() -> None:
    with pytest.raises(ConfigError, match="sample_store_size=-1"):
        store(np.array([1]), cache_size=-1)
