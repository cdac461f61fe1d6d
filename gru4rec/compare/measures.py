"""From the ranks and lists of every model to the numbers of the report, with their uncertainty.

Knows no files and no scorers. Dimensions: T targets, K items of a list.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from gru4rec.compare.plan_file import EvaluationPlan
from gru4rec.compare.slices import slices_of, targets_of
from gru4rec.data.sessions import Sessions
from gru4rec.evaluate.evaluator import Evaluation
from gru4rec.evaluate.lists import average_popularity, coverage, gini, novelty, remaining_values, repeat_rate
from gru4rec.evaluate.metrics import METRICS, event_values
from gru4rec.evaluate.ranks import TIE_MODES, RankCounts
from gru4rec.evaluate.statistics import Interval, bootstrap_intervals, compare_paired, holm, over_seeds

SLICE_METRICS = ("recall", "mrr")
N_LISTED = 10
"""Items of an example's lists."""
_SLICE_RESAMPLES = 500


@dataclass
class Measured:
    """A model's evaluations, one a seed, and what was computed from them.

    Attributes:
        name: Of the model.
        by_seed: Evaluations, by seed.
        values: Float64 (T,), each target's value, the mean over seeds, by metric and list length.
    """

    name: str
    by_seed: dict[int, Evaluation]
    values: dict[tuple[str, int], np.ndarray] = field(default_factory=dict)

    @property
    def first(self) -> Evaluation:
        """The evaluation of the first seed."""
        return next(iter(self.by_seed.values()))


class Measures:
    """Computes the numbers of all models on one test log.

    Args:
        test: The test log.
        train: The training log.
        plan: How to measure.
        primary: Metric and list length that models are sorted by.
    """

    def __init__(self, test: Sessions, train: Sessions, plan: EvaluationPlan, primary: tuple[str, int]) -> None:
        self.test, self.plan, self.primary = test, plan, primary
        self.support = train.support()
        self.session_T = targets_of(test)[3]
        self.slices = slices_of(test, train)

    def counts(self, evaluation: Evaluation) -> RankCounts:
        """Return what decides ranks: among all items, or among candidates where the plan asks for them."""
        if self.plan.candidates is None:
            return evaluation.counts
        return evaluation.counts.among_candidates(self.plan.candidates, self.test.items.n_items, seed=self.plan.seed)

    def values_of(self, evaluation: Evaluation) -> dict[tuple[str, int], np.ndarray]:
        """Return each target's value by metric and list length."""
        if self.plan.targets == "remaining":
            assert evaluation.lists_TK is not None
            by_k = {k: remaining_values(evaluation.lists_TK, self.test, k) for k in self.plan.k}
            return {(metric, k): values[metric] for k, values in by_k.items() for metric in METRICS}
        ranks = self.counts(evaluation).ranks(self.plan.ties, seed=self.plan.seed)
        return {(metric, k): event_values(ranks, metric, k) for metric in METRICS for k in self.plan.k}

    def model(self, measured: Measured) -> dict[str, Any]:
        """Return the numbers of one model; fills in its ``values``."""
        of_seeds = [self.values_of(evaluation) for evaluation in measured.by_seed.values()]
        measured.values = {key: np.mean([values[key] for values in of_seeds], axis=0) for key in of_seeds[0]}
        return {
            "metrics": self._metrics(measured, of_seeds),
            "lists": self._lists(measured.first),
            "ties": self._ties(measured),
            "slices": self._slices(measured),
        }

    def _metrics(self, measured: Measured, of_seeds: Sequence[dict[tuple[str, int], np.ndarray]]) -> dict[str, Any]:
        keys = list(measured.values)
        intervals = self._intervals(np.stack([measured.values[key] for key in keys], axis=1), self.session_T)
        found: dict[str, dict[str, Any]] = {metric: {} for metric in METRICS}
        for (metric, k), interval in zip(keys, intervals, strict=True):
            by_seed = [float(values[metric, k].mean()) for values in of_seeds]
            _, deviation = over_seeds(by_seed)
            found[metric][str(k)] = {**_as_dict(interval), "deviation": deviation, "by_seed": by_seed}
        return found

    def _intervals(self, values_TM: np.ndarray, session_T: np.ndarray, n_resamples: int = 0) -> list[Interval]:
        return bootstrap_intervals(
            values_TM,
            session_T,
            n_resamples=n_resamples or self.plan.resamples,
            level=self.plan.level,
            seed=self.plan.seed,
        )

    def _lists(self, evaluation: Evaluation) -> dict[str, dict[str, float]]:
        lists_TK, n_items = evaluation.lists_TK, self.test.items.n_items
        assert lists_TK is not None
        return {
            "coverage": {str(k): coverage(lists_TK, n_items, k) for k in self.plan.k},
            "gini": {str(k): gini(lists_TK, n_items, k) for k in self.plan.k},
            "average_popularity": {str(k): average_popularity(lists_TK, self.support, k) for k in self.plan.k},
            "novelty": {str(k): novelty(lists_TK, self.support, k) for k in self.plan.k},
            "repeat_rate": {str(k): repeat_rate(lists_TK, self.test, k) for k in self.plan.k},
        }

    def _ties(self, measured: Measured) -> dict[str, Any] | None:
        """Return the metrics in every tie mode, the mean over seeds."""
        if self.plan.targets == "remaining":
            return None
        of_seeds, k = [self.counts(evaluation) for evaluation in measured.by_seed.values()], self.primary[1]
        modes: dict[str, Any] = {}
        for mode in TIE_MODES:
            ranks = [counts.ranks(mode, seed=self.plan.seed) for counts in of_seeds]
            modes[mode] = {
                metric: {str(k): float(np.mean([event_values(one, metric, k).mean() for one in ranks]))}
                for metric in SLICE_METRICS
            }
        return {"share_tied": float(np.mean([np.mean(counts.n_equal > 1) for counts in of_seeds])), "modes": modes}

    def _slices(self, measured: Measured) -> dict[str, list[dict[str, Any]]]:
        k = self.primary[1]
        values_TM = np.stack([measured.values[metric, k] for metric in SLICE_METRICS], axis=1)
        return {name: [self._slice(*part, values_TM) for part in groups] for name, groups in self.slices.items()}

    def _slice(self, name: str, inside: np.ndarray, values_TM: np.ndarray) -> dict[str, Any]:
        intervals = self._intervals(values_TM[inside], self.session_T[inside], _SLICE_RESAMPLES)
        named = {metric: _as_dict(interval) for metric, interval in zip(SLICE_METRICS, intervals, strict=True)}
        return {"slice": name, "n_events": int(inside.sum()), **named}

    def pairs(self, models: Sequence[Measured]) -> list[dict[str, Any]]:
        """Compare the best model by the primary metric with every other, in Recall and MRR at its list length.

        P-values are corrected for all comparisons of one metric (Holm).
        """
        if len(models) < 2:
            return []
        best = max(models, key=lambda model: float(model.values[self.primary].mean()))
        found = []
        for metric in dict.fromkeys((self.primary[0], *SLICE_METRICS)):
            key = (metric, self.primary[1])
            rows = []
            for other in models:
                if other is best:
                    continue
                paired = compare_paired(
                    best.values[key], other.values[key], self.session_T,
                    n_resamples=self.plan.resamples, n_permutations=self.plan.permutations,
                    level=self.plan.level, seed=self.plan.seed,
                )  # fmt: skip
                rows.append({"a": best.name, "b": other.name, "metric": metric, "k": key[1], **vars(paired)})
            corrected = holm([row["p_value"] for row in rows])
            found += [{**row, "p_adjusted": value} for row, value in zip(rows, corrected, strict=True)]
        return found

    def examples(self, models: Sequence[Measured]) -> list[dict[str, Any]]:
        """Return some sessions, what followed, and what every model listed."""
        rng = np.random.default_rng([self.plan.seed, 4])
        long_enough = np.flatnonzero(self.test.lengths >= 3)
        if not len(long_enough):
            long_enough = np.flatnonzero(self.test.lengths >= 2)
        n_examples = min(self.plan.examples, len(long_enough))
        return [self._example(int(session), models) for session in rng.choice(long_enough, n_examples, replace=False)]

    def _example(self, session: int, models: Sequence[Measured]) -> dict[str, Any]:
        items, offsets = self.test.items, self.test.offsets
        clicked = self.test.item_idx[offsets[session] : offsets[session + 1]]
        target = int(offsets[session + 1] - 1 - session - 1)  # targets before: events, less one a session
        lists, ranks = {}, {}
        for model in models:
            lists_TK = model.first.lists_TK
            assert lists_TK is not None
            listed = lists_TK[target, :N_LISTED]
            lists[model.name] = [str(item_id) for item_id in items.ids_of(listed[listed >= 0])]
            rank = self.counts(model.first).ranks(self.plan.ties, seed=self.plan.seed)[target]
            ranks[model.name] = float(rank)
        ids = [str(item_id) for item_id in items.ids_of(clicked)]
        return {"session": ids[:-1][-20:], "target": ids[-1], "lists": lists, "ranks": ranks}


def _as_dict(interval: Interval) -> dict[str, float]:
    return {"value": interval.value, "low": interval.low, "high": interval.high}
