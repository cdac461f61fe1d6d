"""Who is best, and whether that is certain: read from the results of a comparison, for page and terminal alike."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from gru4rec.compare.figures import NAMES, Shown
from gru4rec.compare.spelling import number, probability


def standings(results: dict[str, Any]) -> list[Shown]:
    """Return the models, the best by the primary metric first, those that failed last."""
    metric, k = results["protocol"]["primary"]
    places = range(len(results["models"]))
    failed = [place for place in places if results["models"][place]["error"] is not None]
    done = sorted(
        set(places) - set(failed),
        key=lambda place: (-results["models"][place]["metrics"][metric][str(k)]["value"], place),
    )
    return [
        *(Shown(place, rank, results["models"][place]) for rank, place in enumerate(done, start=1)),
        *(Shown(place, None, results["models"][place]) for place in failed),
    ]


def verdict(results: dict[str, Any], spell: Callable[[str], str] = str) -> str:
    """Say in one sentence which model is best, and whether that is certain.

    Args:
        results: Of a comparison.
        spell: Writes the name of a model.
    """
    models = standings(results)
    ranked = [shown for shown in models if shown.rank is not None]
    names = [spell(shown.model["name"]) for shown in models]
    failed = names[len(ranked) :]
    failures = f"; {_listed(failed)} failed" if failed else ""
    if not ranked:
        return f"Nothing can be compared: {_listed(failed)} failed."
    metric, k = results["protocol"]["primary"]
    best = ranked[0].model["metrics"][metric][str(k)]
    said = (
        f"{NAMES[metric]}@{k} {number(best['value'])} ({100 * results['protocol']['level']:g} % interval "
        f"{number(best['low'])} to {number(best['high'])})"
    )
    if len(ranked) == 1:
        return f"{names[0]} has {said}, and there is no other model to compare it with{failures}."
    return f"{names[0]} is best, with {said}, {_certainty(results, ranked, names)}{failures}."


def _certainty(results: dict[str, Any], ranked: Sequence[Shown], names: Sequence[str]) -> str:
    """Say whether the best is told apart from the second, and from whom else it is not."""
    leads = [lead_of(results, shown, ranked[0]) for shown in ranked[1:]]
    if leads[0] is None:
        return f"but its difference from {names[1]} was not tested"
    lead, p = number(-leads[0]["difference"]), leads[0]["p_adjusted"]
    tested = f"p {probability(p, sign=True)} after Holm's correction"
    near = [
        name
        for name, other in zip(names[1:], leads, strict=False)
        if other and not told_apart(results, other["p_adjusted"])
    ]
    if told_apart(results, p):
        others = f", unlike that over {_listed(near)}" if near else ""
        return f"and its lead of {lead} over {names[1]} is significant ({tested}){others}"
    others = f"; nor from {_listed(near[1:], 'or')}" if near[1:] else ""
    return (
        f"but its lead of {lead} over {names[1]} is not significant ({tested}): this log does not tell it from "
        f"{names[1]}{others}"
    )


def alpha(results: dict[str, Any]) -> float:
    """Return the least p-value that is not significant; 0.05, where 1 - 0.95 would be a little more."""
    return round(1 - float(results["protocol"]["level"]), 10)


def told_apart(results: dict[str, Any], p_adjusted: float) -> bool:
    """Tell whether a difference is significant."""
    return p_adjusted < alpha(results)


def _listed(names: Sequence[str], word: str = "and") -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} {word} {names[-1]}"


def isolated(name: str) -> str:
    """Wrap a name in marks that keep its direction of writing from turning its surroundings."""
    return f"\u2068{name}\u2069"


def lead_of(results: dict[str, Any], shown: Shown, best: Shown) -> dict[str, float] | None:
    """Return the test of a model against the best, differences as seen from the model; None if there is none."""
    metric, k = results["protocol"]["primary"]
    names = shown.model["name"], best.model["name"]
    for pair in results["pairs"]:
        if (pair["metric"], pair["k"]) == (metric, k) and {pair["a"], pair["b"]} == set(names):
            sign = 1 if pair["a"] == names[0] else -1
            return {"difference": sign * pair["difference"], "p_adjusted": pair["p_adjusted"]}
    return None
