"""The terminal's table of a backtest."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from gru4rec.backtest.job import POLICIES, TITLES


def table_lines(results: Mapping[str, Any]) -> Iterator[str]:
    """Yield a line for each window and policy, the means, and what updating reaches of training anew."""
    k = str(results["plan"]["cutoffs"][0])
    columns = (f"Recall@{k}", f"MRR@{k}", "known only", "new: recall", "in lists", "seconds")
    yield f"{'window':<8}{'policy':<12}" + "".join(f"{name:>12}" for name in columns)
    for window in results["windows"]:
        for policy in POLICIES:
            yield _line(str(window["window"]), policy, window["policies"][policy], k)
    for policy in POLICIES:
        mean = results["summary"][policy]
        yield _line("mean", policy, {**mean, "seconds": mean["seconds"] / len(results["windows"])}, k)
    yield verdict(results)


def _line(window: str, policy: str, row: Mapping[str, Any], k: str) -> str:
    shown = (
        row["all"]["recall"][k], row["all"]["mrr"][k], row["known"]["mrr"][k], row["new"]["recall"][k],
        row["new"]["share_of_lists"][k],
    )  # fmt: skip
    cells = [*("-" if value is None else f"{value:.4f}" for value in shown), f"{row['seconds']:.1f}"]
    return f"{window:<8}{TITLES[policy]:<12}" + "".join(f"{cell:>12}" for cell in cells)


def verdict(results: Mapping[str, Any]) -> str:
    """Say in a sentence what updating reaches of training anew, and in how much of its time.

    Wall time is what a night has; processor time says the same on a machine that has other things to do.

    Example:
        >>> ratios = {"mrr": {"20": 0.9912}, "recall": {"20": 0.98}, "seconds": 0.24, "cpu_seconds": 0.22}
        >>> said = verdict({"plan": {"cutoffs": [20]}, "summary": {"update_over_retrain": ratios}})
        >>> said.partition(" and ")[0], said.partition(", ")[2]
        ('Updating reaches 99.1% of the MRR@20', 'in 24% of its time (22% of processor time).')
    """
    k = str(results["plan"]["cutoffs"][0])
    ratio = results["summary"]["update_over_retrain"]
    if ratio["mrr"][k] is None:
        return "Training anew hits nothing, so there is nothing to compare updating with."
    return (
        f"Updating reaches {100 * ratio['mrr'][k]:.1f}% of the MRR@{k} and {100 * ratio['recall'][k]:.1f}% of the "
        f"Recall@{k} of training anew, in {100 * ratio['seconds']:.0f}% of its time "
        f"({100 * ratio['cpu_seconds']:.0f}% of processor time)."
    )
