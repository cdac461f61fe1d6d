"""All baselines by name: their settings, how they are fitted, and what a tuner may try.

Knows no files and no model of the GRU kind.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from pydantic import ValidationError

from gru4rec.baselines.item_to_item import ItemMatrix, ItemToItemScorer, association_rules, item_knn, markov
from gru4rec.baselines.pop import PopularityScorer
from gru4rec.baselines.random_order import RandomScorer
from gru4rec.baselines.session_knn import SessionIndex, SessionKNNScorer
from gru4rec.baselines.session_pop import SessionPopularityScorer
from gru4rec.baselines.settings import (
    AssociationSettings,
    BaselineSettings,
    ItemKNNSettings,
    MarkovSettings,
    NoSettings,
    RandomSettings,
    SessionKNNSettings,
    SessionPopularitySettings,
)
from gru4rec.data.sessions import Sessions
from gru4rec.errors import ConfigError
from gru4rec.evaluate.evaluator import Scorer

Arrays = dict[str, np.ndarray]


@dataclass(frozen=True)
class Kind:
    """A baseline.

    Attributes:
        label: What people call it.
        settings: Class of its settings.
        fit: Makes a scorer of a training log and settings.
        arrays: What of a scorer has to be saved, the items' support aside.
        restore: Makes a scorer of saved arrays, support and settings.
        defaults: Values that differ from those of the class.
        space: What a tuner tries, a dict a setting, as in paramspaces/.
    """

    label: str
    settings: type[BaselineSettings]
    fit: Callable[[Sessions, Any], Scorer]
    arrays: Callable[[Any], Arrays]
    restore: Callable[[Arrays, np.ndarray, Any], Scorer]
    defaults: Mapping[str, Any] = field(default_factory=dict)
    space: tuple[Mapping[str, Any], ...] = ()


def _choice(name: str, *values: Any) -> dict[str, Any]:
    return {"name": name, "dtype": "categorical", "values": list(values)}


def _nothing(scorer: Scorer) -> Arrays:
    return {}


def _rows_of(scorer: ItemToItemScorer) -> Arrays:
    return dict(vars(scorer.matrix))


def _restored_rows(arrays: Arrays, support: np.ndarray, settings: BaselineSettings) -> ItemToItemScorer:
    return ItemToItemScorer(ItemMatrix(**arrays), support)


def _index_of(scorer: SessionKNNScorer) -> Arrays:
    return dict(vars(scorer.index))


def _restored_index(arrays: Arrays, support: np.ndarray, settings: SessionKNNSettings) -> SessionKNNScorer:
    return SessionKNNScorer(SessionIndex(**arrays), support, settings)


_SIMPLE: tuple[Mapping[str, Any], ...] = (_choice("exclude_last", True, False),)
_NEIGHBOURS = (_choice("k", 50, 100, 200, 500, 1000, 1500), _choice("m", 500, 1000, 2500, 5000))
_WEIGHTINGS = ("same", "linear", "position", "inverse", "quadratic")


def _session_knn(label: str, defaults: Mapping[str, Any], space: tuple[Mapping[str, Any], ...]) -> Kind:
    return Kind(
        label,
        SessionKNNSettings,
        SessionKNNScorer.fit,
        _index_of,
        _restored_index,
        defaults,
        (*_NEIGHBOURS, *_SIMPLE, *space),
    )


KINDS: dict[str, Kind] = {
    "random": Kind(
        "random order", RandomSettings,
        lambda sessions, settings: RandomScorer(sessions.items.n_items, seed=settings.seed), _nothing,
        lambda arrays, support, settings: RandomScorer(len(support), seed=settings.seed),
    ),
    "pop": Kind(
        "popularity", NoSettings, lambda sessions, settings: PopularityScorer(sessions.support()),
        _nothing, lambda arrays, support, settings: PopularityScorer(support),
    ),
    "session_pop": Kind(
        "session popularity", SessionPopularitySettings,
        lambda sessions, settings: SessionPopularityScorer(sessions.support(), settings),
        _nothing, lambda arrays, support, settings: SessionPopularityScorer(support, settings), space=_SIMPLE,
    ),
    "markov": Kind(
        "Markov", MarkovSettings, markov, _rows_of, _restored_rows, space=(_choice("steps", 1, 2, 3, 5, 10, 20),)
    ),
    "association_rules": Kind(
        "association rules", AssociationSettings, association_rules, _rows_of, _restored_rows,
        space=(_choice("n_neighbours", 50, 200, 1000, 10_000),),
    ),
    "item_knn": Kind(
        "item kNN", ItemKNNSettings, item_knn, _rows_of, _restored_rows,
        space=(_choice("n_neighbours", 20, 50, 100, 500), _choice("regularisation", 0, 5, 20, 50, 100)),
    ),
    "sknn": _session_knn(
        "S-kNN", {"weighting": "same", "score_weighting": "same", "cosine": True}, ()
    ),
    "vsknn": _session_knn(
        "V-SkNN", {},
        (
            _choice("weighting", *_WEIGHTINGS), _choice("score_weighting", *_WEIGHTINGS),
            _choice("idf_weight", 0, 0.1, 1, 5), _choice("cosine", True, False),
        ),
    ),
    "vmisknn": _session_knn(
        "VMIS-kNN", {"m": 500, "idf_weight": 1.0}, (_choice("idf_weight", 0.1, 1, 5),)
    ),
    "stan": _session_knn(
        "STAN",
        {"weighting": "exponential", "score_weighting": "same", "cosine": True, "recency": 0.3, "gap_decay": 2.0},
        (
            _choice("decay", 0.5, 1, 2, 4), _choice("recency", 0, 0.1, 0.3, 1), _choice("gap_decay", 0.5, 1, 2, 4, 8),
            _choice("score_weighting", "same", "inverse", "quadratic", "exponential"),
            _choice("idf_weight", 0, 0.1, 1, 5), _choice("cosine", True, False),
        ),
    ),
}  # fmt: skip
"""All baselines; a hybrid is made of two parts, and made elsewhere."""


def kind_of(name: str) -> Kind:
    """Return a baseline by name.

    Raises:
        ConfigError: There is none of that name.
    """
    if name not in KINDS:
        close = difflib.get_close_matches(name, KINDS, n=1)
        hint = f"; did you mean {close[0]!r}?" if close else ""
        raise ConfigError(f"unknown baseline {name!r}. Choose from {', '.join(KINDS)}{hint}")
    return KINDS[name]


def baseline_settings(name: str, values: Mapping[str, Any], *, where: str = "the settings") -> BaselineSettings:
    """Check the settings of a baseline and fill in the defaults.

    Args:
        name: Of the baseline.
        values: Settings by name; text is converted.
        where: What the message should name as their source.

    Raises:
        ConfigError: An unknown name or a wrong value; all are named in one message.

    Example:
        >>> baseline_settings("vsknn", {"k": "500"}).k
        500
    """
    kind = kind_of(name)
    settings: BaselineSettings = checked(kind.settings, {**kind.defaults, **values}, f"{where} of {name}")
    return settings


def checked(settings: type[BaselineSettings], values: Mapping[str, Any], where: str) -> Any:
    """Make settings of values, with one message for all that is wrong.

    Raises:
        ConfigError: An unknown name or a wrong value.
    """
    try:
        return settings(**values)
    except ValidationError as error:
        raise ConfigError("; ".join(_worded(detail, settings, where) for detail in error.errors())) from None


def _worded(detail: Any, settings: type[BaselineSettings], where: str) -> str:
    name = str(detail["loc"][0])
    if detail["type"] == "extra_forbidden":
        close = difflib.get_close_matches(name, settings.model_fields, n=1)
        hint = f"; did you mean {close[0]!r}?" if close else ""
        names = ", ".join(settings.model_fields) or "it has no settings"
        return f"unknown setting {name!r} in {where}. Choose from: {names}{hint}"
    return f"{name}={detail['input']!r} in {where} does not fit: {detail['msg'][0].lower()}{detail['msg'][1:]}"


def fit_baseline(name: str, sessions: Sessions, settings: BaselineSettings) -> Scorer:
    """Fit a baseline to a training log."""
    return kind_of(name).fit(sessions, settings)
