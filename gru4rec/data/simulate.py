"""Simulate a shop's click log whose best possible recommendation is known exactly.

For demos, tests and benchmarks: a model's Recall@k says little alone; here it can be set beside the best that any
model could reach. The next click depends on the clicks of the session so far and on the day, on nothing hidden, so
its probabilities can be written down. It is one of four things, drawn anew at each click:

- a *sequel* of the last item (a charger after a phone), which lies in another category;
- another item of the last item's *category*, by popularity;
- a *repeat*: back to an item of an earlier click of the session;
- *wandering*: any item of the shop, by popularity.

Popularity follows Zipf's law in each category and *drifts* from day to day. No click
repeats the item of the click just before.

Array names end in their dimensions: B histories, J clicks in each, D days, N items, Q sequels of an item.
The module knows nothing of models, files or data frames; ``simulated_logs`` splits and writes what it makes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from numbers import Integral, Real

import numpy as np
import numpy.typing as npt

from gru4rec.errors import ConfigError, DataError

DAY_S = 86_400
START_S = 1_767_225_600  # 2026-01-01 00:00 UTC
MAX_GAP_S = 1_800  # between two clicks; recipes that cut sessions do so after an hour

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]


RANGES: dict[str, tuple[float, float]] = {  # inclusive
    "n_items": (4, 1_000_000),
    "n_sessions": (1, 10_000_000),
    "n_categories": (2, 500_000),
    "days": (1, 3_650),
    "seed": (0, 2**63),
    "mean_session_length": (2, 1_000),
    "max_session_length": (2, 10_000),
    "zipf_exponent": (0, 3),
    "drift": (0, 10),
    "n_sequels": (1, 100),
    "sequel_frac": (0, 1),
    "category_frac": (0, 1),
    "repeat_frac": (0, 1),
}


@dataclass(frozen=True, kw_only=True)
class ShopSettings:
    """What the shop is like.

    The defaults make a log on which GRU4Rec comes close to the best possible within a minute on one core.

    Attributes:
        n_items: Items in the catalogue.
        n_sessions: Sessions in the log, each of two clicks or more.
        n_categories: Categories, of equal size; each holds two items or more.
        days: Days the log spans, from 2026-01-01. Popularity changes at midnight UTC.
        seed: Decides the shop and its log.
        mean_session_length: Clicks in a session on average, before the cap.
        max_session_length: Cap on the clicks in a session.
        zipf_exponent: A category's r-th item has weight r ** -zipf_exponent in the middle of the span; 0 is flat.
        drift: An item's weight is multiplied by exp(drift * trend) from the first day to the last, evenly; each
            item has its own trend between -1 and 1. 0 is no drift.
        n_sequels: Sequels of an item, drawn by popularity; the j-th is clicked in proportion to 1 / j.
        sequel_frac: Share of clicks on a sequel of the last item.
        category_frac: Share of clicks within the last item's category.
        repeat_frac: Share of clicks back to an earlier item. While there is none, the other shares grow in proportion.

    Raises:
        ConfigError: A value is out of range, or the values contradict each other.

    Example:
        >>> ShopSettings(sequel_frac=0.4, category_frac=0.4, repeat_frac=0.05).wander_frac
        0.15
    """

    n_items: int = 1_500
    n_sessions: int = 20_000
    n_categories: int = 40
    days: int = 28
    seed: int = 42
    mean_session_length: float = 6.0
    max_session_length: int = 40
    zipf_exponent: float = 1.1
    drift: float = 0.8
    n_sequels: int = 3
    sequel_frac: float = 0.62
    category_frac: float = 0.13
    repeat_frac: float = 0.02

    def __post_init__(self) -> None:
        for each in fields(self):
            value: object = getattr(self, each.name)
            low, high = RANGES[each.name]
            kind, noun = (Integral, "a whole number") if isinstance(each.default, int) else (Real, "a number")
            if isinstance(value, bool) or not isinstance(value, kind):
                raise ConfigError(
                    f"{each.name}={value!r} in ShopSettings is not {noun}. Give one from {low} to {high}."
                )
            if not low <= float(value) <= high:  # refuses nan too
                raise ConfigError(
                    f"{each.name}={value!r} in ShopSettings is out of range. Give {noun} from {low} to {high}; "
                    f"the nearest is {high if float(value) > high else low}."
                )
        if self.n_items < 2 * self.n_categories:
            raise ConfigError(
                f"n_categories={self.n_categories} in ShopSettings is too many for n_items={self.n_items}: a category "
                f"needs two items. Take at most {self.n_items // 2} categories, or more items."
            )
        if self.wander_frac <= 0:
            raise ConfigError(
                f"sequel_frac={self.sequel_frac}, category_frac={self.category_frac} and repeat_frac="
                f"{self.repeat_frac} in ShopSettings leave nothing for wandering. Make their sum less than 1."
            )

    @property
    def wander_frac(self) -> float:
        """Share of clicks on any item of the shop: what the three other shares leave."""
        return round(1.0 - self.sequel_frac - self.category_frac - self.repeat_frac, 12)


@dataclass(frozen=True, eq=False)
class ClickRules:
    """The tables that decide a click, and the two readings of them: the probabilities, and a draw.

    Item indices are positions in ``item_catalogue``, which lists the shop category by category.

    Attributes:
        settings: What the shop is like.
        item_catalogue: Int64 (N,), the ids, sparse and in no order.
        category_start: Int64 (n_categories + 1,). Category c holds the items category_start[c] up to [c + 1].
        category_N: Int64 (N,), the category of each item.
        trend_N: Float64 (N,) in [-1, 1], how each item's popularity drifts.
        popularity_DN: Float64 (D, N), probabilities; each row sums to 1.
        sequels_NQ: Int64 (N, Q), item indices, the likeliest first. An item listed twice is the stronger sequel.
    """

    settings: ShopSettings
    item_catalogue: Ints
    category_start: Ints
    category_N: Ints
    trend_N: Floats
    popularity_DN: Floats
    sequels_NQ: Ints

    def day_of(self, time: npt.ArrayLike) -> Ints:
        """Return the row of ``popularity_DN`` in force at these times; the first and the last extend outwards."""
        day = (np.asarray(time, dtype=np.int64) - START_S) // DAY_S
        return day.clip(0, self.settings.days - 1)

    def index_of(self, item_ids: npt.ArrayLike) -> Ints:
        """Return the item indices of these ids; raise DataError where the shop has no such item."""
        ids = np.asarray(item_ids, dtype=np.int64)
        order = np.argsort(self.item_catalogue)
        index: Ints = order[np.searchsorted(self.item_catalogue, ids, sorter=order).clip(max=len(order) - 1)]
        if (unknown := ids[self.item_catalogue[index] != ids]).size:
            raise DataError(
                f"item {unknown[0]} is not in the simulated shop's catalogue ({unknown.size} such in this call). "
                "Use the shop that the log comes from."
            )
        return index

    @property
    def sequel_odds(self) -> Floats:
        """Return float64 (Q,): the probability of an item's first, second, ... sequel among its sequels."""
        odds = 1.0 / np.arange(1, self.settings.n_sequels + 1)
        return np.asarray(odds / odds.sum())

    def probabilities(self, history_BJ: Ints, day_B: Ints) -> Floats:
        """Return float64 (B, N): each item's probability to be clicked next after each history of item indices."""
        p_BN = self.popularity_DN[day_B]
        if not history_BJ.shape[1]:
            return p_BN
        s, row_B, last_B = self.settings, np.arange(len(history_BJ)), history_BJ[:, -1]
        back_BJ = history_BJ[:, :-1] != last_B[:, None]
        n_back_B = back_BJ.sum(axis=1)
        p_BN[row_B, last_B] = 0.0
        category_BN = p_BN * (self.category_N == self.category_N[last_B][:, None])
        category_BN *= (s.category_frac / category_BN.sum(axis=1))[:, None]
        p_BN *= (s.wander_frac / p_BN.sum(axis=1))[:, None]
        p_BN += category_BN
        for j, odds in enumerate(self.sequel_odds):
            p_BN[row_B, self.sequels_NQ[last_B, j]] += s.sequel_frac * odds
        p_BN[n_back_B == 0] /= 1.0 - s.repeat_frac
        row, column = np.nonzero(back_BJ)
        np.add.at(p_BN, (row, history_BJ[row, column]), s.repeat_frac / n_back_B[row])
        return p_BN

    def draw(self, history_BJ: Ints, day_B: Ints, rng: np.random.Generator) -> Ints:
        """Return int64 (B,): an item index drawn after each history, by the rules of ``probabilities``."""
        n_histories, n_clicks = history_BJ.shape
        s, chance_B = self.settings, np.asarray(rng.random(n_histories))
        if not n_clicks:
            return self._search(chance_B, day_B).clip(0, s.n_items - 1)
        last_B = history_BJ[:, -1]
        back_BJ = history_BJ[:, :-1] != last_B[:, None]
        can_go_back_B = back_BJ.any(axis=1)
        shares = np.cumsum([s.sequel_frac, s.category_frac, s.wander_frac])  # beyond the last: repeats
        kind_B = np.searchsorted(
            shares, rng.random(n_histories) * np.where(can_go_back_B, 1.0, shares[-1]), side="right"
        )
        category_B = self.category_N[last_B]
        first_B = np.where(kind_B == 1, self.category_start[category_B], 0)
        end_B = np.where(kind_B == 1, self.category_start[category_B + 1], s.n_items)
        item_B = self._draw_popular(chance_B, day_B, last_B, first_B, end_B)
        sequel_B = np.searchsorted(np.cumsum(self.sequel_odds)[:-1], chance_B, side="right")
        item_B = np.where(kind_B == 0, self.sequels_NQ[last_B, sequel_B], item_B)
        if (back := np.flatnonzero((kind_B == 3) & can_go_back_B)).size:
            keys = np.where(back_BJ[back], rng.random((back.size, n_clicks - 1)), -1.0)
            item_B[back] = history_BJ[back, keys.argmax(axis=1)]
        return item_B

    @cached_property
    def _upto_DN1(self) -> Floats:
        upto_DN1 = np.cumsum(np.pad(self.popularity_DN, ((0, 0), (1, 0))), axis=1)
        return np.asarray(upto_DN1 / upto_DN1[:, -1:])

    @cached_property
    def _upto_flat(self) -> Floats:
        return np.ravel(self._upto_DN1 + np.arange(self.settings.days)[:, None])  # all days as one sorted row

    def _search(self, mass_B: Floats, day_B: Ints) -> Ints:
        """Find the item at which a day's cumulative popularity passes the given mass; may be one past the end."""
        n_columns = self.settings.n_items + 1
        return np.searchsorted(self._upto_flat, mass_B + day_B, side="right") - day_B * n_columns - 1

    def _draw_popular(self, chance_B: Floats, day_B: Ints, last_B: Ints, first_B: Ints, end_B: Ints) -> Ints:
        """Draw by popularity among items first to end - 1 without the last clicked: its mass is stepped over."""
        skipped_B = self.popularity_DN[day_B, last_B]
        low_B = self._upto_DN1[day_B, first_B]
        mass_B = low_B + chance_B * (self._upto_DN1[day_B, end_B] - low_B - skipped_B)
        after_B = (mass_B >= self._upto_DN1[day_B, last_B]) & (last_B < end_B - 1)
        item_B = self._search(mass_B + np.where(after_B, skipped_B, 0.0), day_B)
        # Rounding at a boundary must neither bring the last item back nor leave the range.
        return item_B.clip(np.where(after_B, last_B + 1, first_B), np.where(after_B, end_B, last_B) - 1)


@dataclass(frozen=True, eq=False)
class Shop:
    """A simulated log, in time order as a real shop writes it: concurrent sessions interleave.

    Attributes:
        rules: How the clicks came about.
        session_id: Int64 (n_events,), sparse, in no order.
        item_id: Int64 (n_events,), values of ``item_catalogue``.
        time: Int64 (n_events,), seconds since 1970, ascending; strictly so within a session.
    """

    rules: ClickRules
    session_id: Ints
    item_id: Ints
    time: Ints

    @property
    def item_catalogue(self) -> Ints:
        """Int64 (n_items,), the ids of the shop's items in the order of every distribution."""
        return self.rules.item_catalogue

    def next_item_distribution(self, item_ids_so_far: Sequence[int], time: int) -> Floats:
        """Compute the exact probability of each item to be the next click.

        Args:
            item_ids_so_far: The session's clicks, oldest first; empty before a session's first click.
            time: When the next click falls, seconds since 1970. Only its day matters.

        Returns:
            Float64 (n_items,) in the order of ``item_catalogue``, summing to 1.

        Raises:
            DataError: An item is not in the catalogue.
        """
        history_BJ = self.rules.index_of(item_ids_so_far).reshape(1, -1)
        return self.rules.probabilities(history_BJ, self.rules.day_of([time])).ravel()

    def draw_next_items(self, item_ids_so_far: Sequence[int], time: int, *, n_draws: int, seed: int) -> Ints:
        """Draw the next click after one history many times over, independently; int64 (n_draws,) of item ids."""
        history_BJ = np.tile(self.rules.index_of(item_ids_so_far), (n_draws, 1))
        day_B = np.repeat(self.rules.day_of([time]), n_draws)
        return self.item_catalogue[self.rules.draw(history_BJ, day_B, np.random.default_rng(seed))]


def simulate_shop(settings: ShopSettings) -> Shop:
    """Make up a shop and its log.

    Args:
        settings: What the shop is like; ``ShopSettings()`` gives about 120,000 events in half a second.

    Returns:
        The log with the rules behind it. Same settings, same bytes.

    Example:
        >>> shop = simulate_shop(ShopSettings(n_items=50, n_categories=5, n_sessions=100, seed=1))
        >>> float(shop.next_item_distribution([shop.item_id[0]], shop.time[0]).sum().round(9))
        1.0
    """
    rng = np.random.default_rng(settings.seed)
    rules = _make_rules(settings, rng)
    n_sessions = settings.n_sessions
    extra = rng.geometric(1.0 / (settings.mean_session_length - 1.0), n_sessions) - 1
    length = np.minimum(2 + extra, settings.max_session_length)
    evening_peak = rng.triangular(0, 20 * 3_600, DAY_S, n_sessions)
    start = START_S + rng.integers(0, settings.days, n_sessions) * DAY_S + evening_peak.astype(np.int64)
    gap = np.clip(rng.lognormal(np.log(45), 1.0, (n_sessions, length.max())), 1, MAX_GAP_S).astype(np.int64)
    time = start[:, None] + np.cumsum(gap, axis=1) - gap[:, :1]
    item = np.zeros(time.shape, dtype=np.int64)
    for j in range(length.max()):
        active = np.flatnonzero(length > j)
        item[active, j] = rules.draw(item[active, :j], rules.day_of(time[active, j]), rng)
    session_id = np.cumsum(rng.integers(1, 50, n_sessions)) + 10_000_000
    session, click = np.nonzero(np.arange(length.max()) < length[:, None])
    order = np.argsort(time[session, click], kind="stable")
    session, click = session[order], click[order]
    return Shop(rules, session_id[session], rules.item_catalogue[item[session, click]], time[session, click])


def _make_rules(s: ShopSettings, rng: np.random.Generator) -> ClickRules:
    catalogue = rng.choice(max(9_000_000, 10 * s.n_items), s.n_items, replace=False).astype(np.int64) + 1_000_000
    category_start = np.arange(s.n_categories + 1) * s.n_items // s.n_categories
    category_N = np.repeat(np.arange(s.n_categories), np.diff(category_start))
    circle = rng.permutation(s.n_categories)
    sequel_category = np.empty_like(circle)
    sequel_category[circle] = np.roll(circle, 1)  # never the category itself
    rank_N = np.concatenate([1.0 + rng.permutation(size) for size in np.diff(category_start)])
    trend_N = rng.uniform(-1.0, 1.0, s.n_items)
    elapsed_D = np.arange(s.days) / max(s.days - 1, 1) - 0.5
    weight_DN = rank_N**-s.zipf_exponent * np.exp(s.drift * trend_N * elapsed_D[:, None])
    popularity_DN = weight_DN / weight_DN.sum(axis=1, keepdims=True)
    sequels_NQ = np.empty((s.n_items, s.n_sequels), dtype=np.int64)
    for category, liked in enumerate(sequel_category):  # accessories are shared: popular ones follow many items
        owners, choices = (slice(*category_start[c : c + 2]) for c in (category, liked))
        p = popularity_DN[s.days // 2, choices]
        sequels_NQ[owners] = rng.choice(np.arange(s.n_items)[choices], sequels_NQ[owners].shape, p=p / p.sum())
    return ClickRules(s, catalogue, category_start, category_N, trend_N, popularity_DN, sequels_NQ)
