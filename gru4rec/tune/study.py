"""A study: what is searched, made once and checked when it is gone on with; its samplers and pruners."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

import numpy as np
import optuna
from optuna.exceptions import DuplicatedStudyError, StorageInternalError
from optuna.storages import BaseStorage
from optuna.trial import TrialState
from sqlalchemy import exc

from gru4rec.errors import ConfigError
from gru4rec.evaluate.ranks import TieMode
from gru4rec.tune.claims import enter
from gru4rec.tune.space import Dimension
from gru4rec.tune.storage import Address, storage_failed

SamplerName = Literal["tpe", "random", "gp", "cmaes"]
SAMPLERS: tuple[SamplerName, ...] = get_args(SamplerName)
PrunerName = Literal["hyperband", "median", "none"]
PRUNERS: tuple[PrunerName, ...] = get_args(PrunerName)

_SEARCH = "search"
"""The study's attribute that holds what is searched."""


@dataclass(frozen=True)
class Search:
    """What a study searches; the same in all programs that work on it.

    Attributes:
        space: What is drawn.
        fixed: Settings that all trials share.
        metric: What is to be high.
        k: Its list length.
        mode: What equal scores do to a rank.
        engine: How trials compute.
        precision: Of their matrix products.
        data: Fingerprints of the training and the validation log as they are read.
        sampler: How settings are drawn.
        pruner: How trials are ended early.
        seed: Of all draws.
    """

    space: tuple[Dimension, ...]
    fixed: Mapping[str, Any]
    metric: Literal["recall", "mrr"]
    k: int
    mode: TieMode
    engine: Literal["auto", "fast", "plain"]
    precision: Literal["float32", "tf32", "bf16"]
    data: tuple[str, str]
    sampler: SamplerName
    pruner: PrunerName
    seed: int

    @property
    def name(self) -> str:
        """The metric as people write it.

        Example:
            >>> Search((), {}, "mrr", 20, "standard", "auto", "float32", ("", ""), "tpe", "none", 42).name
            'MRR@20'
        """
        return f"{'MRR' if self.metric == 'mrr' else 'Recall'}@{self.k}"

    def as_json(self) -> dict[str, Any]:
        """Return it as JSON can hold it."""
        space = [dimension.model_dump(exclude_defaults=True) for dimension in self.space]
        found: dict[str, Any] = json.loads(json.dumps(asdict(self) | {"space": space}))
        return found

    def new_sampler(self, place: int) -> optuna.samplers.BaseSampler:
        """Return the sampler of a place of the study, so that a place is drawn alike whoever takes it."""
        seed = int(np.random.SeedSequence([self.seed, place]).generate_state(1)[0])
        if self.sampler == "random":
            return optuna.samplers.RandomSampler(seed=seed)
        if self.sampler == "gp":
            return optuna.samplers.GPSampler(seed=seed)
        if self.sampler == "cmaes":
            return optuna.samplers.CmaEsSampler(seed=seed, warn_independent_sampling=False)
        return optuna.samplers.TPESampler(seed=seed, constant_liar=True)

    def new_pruner(self) -> optuna.pruners.BasePruner:
        """Return the pruner; steps are epochs."""
        if self.pruner == "hyperband":
            return optuna.pruners.HyperbandPruner(min_resource=1, max_resource=max(self._most_epochs(), 1))
        return optuna.pruners.MedianPruner() if self.pruner == "median" else optuna.pruners.NopPruner()

    def _most_epochs(self) -> int:
        from gru4rec.config import hyper_parameters

        drawn = [dimension for dimension in self.space if dimension.name == "n_epochs"]
        return int(max(drawn[0].values)) if drawn else hyper_parameters(self.fixed).n_epochs


def check_libraries(sampler: SamplerName) -> None:
    """Make sure that a sampler can draw.

    Raises:
        ConfigError: A library is missing.
    """
    needed = {"gp": "scipy", "cmaes": "cmaes"}.get(sampler)
    try:
        if needed is not None:
            __import__(needed)
    except ImportError:
        raise ConfigError(
            f"--sampler {sampler} needs {needed}, which is missing. Run: pip install 'gru4rec[tune]'"
        ) from None


def study_names(storage: BaseStorage, address: Address) -> list[str]:
    """Return the names of a storage's studies, those aside whose making was interrupted.

    Raises:
        DataError: The storage cannot be read.
    """
    try:
        return [study.study_name for study in storage.get_all_studies() if not _is_half_made(study.study_name, storage)]
    except (StorageInternalError, exc.SQLAlchemyError) as error:
        raise storage_failed(error, address) from None


def make_study(name: str, storage: BaseStorage, search: Search, starts: Sequence[Mapping[str, Any]]) -> optuna.Study:
    """Make a study, with settings that are tried first.

    Raises:
        ConfigError: It is there already.
    """
    try:
        if name in optuna.get_all_study_names(storage) and _is_half_made(name, storage):
            optuna.delete_study(study_name=name, storage=storage)
        study = optuna.create_study(study_name=name, storage=storage, direction="maximize")
    except DuplicatedStudyError:
        raise ConfigError(
            f"the study {name!r} is there already. Go on with it: --resume; or give another --study"
        ) from None
    for place, params in enumerate(starts):
        enter(study, place, dict(params))
    study.set_metric_names([search.name])
    study.set_user_attr(_SEARCH, search.as_json())
    return study


def _is_half_made(name: str, storage: BaseStorage) -> bool:
    """Tell whether a study lacks what :func:`make_study` writes last, and has no trial that began."""
    study = optuna.load_study(study_name=name, storage=storage)
    trials = study.get_trials(deepcopy=False)
    return _SEARCH not in study.user_attrs and all(trial.state == TrialState.WAITING for trial in trials)


def load_study(name: str, storage: BaseStorage, search: Search) -> optuna.Study:
    """Open a study to work on.

    Raises:
        ConfigError: It searches something else.
    """
    study = optuna.load_study(study_name=name, storage=storage, pruner=search.new_pruner())
    found, own = study.user_attrs.get(_SEARCH), search.as_json()
    if not isinstance(found, dict):
        raise ConfigError(f"the study {name!r} was not made, or not wholly, by gru4rec tune. Give another --study")
    for part, value in own.items():
        if found.get(part) != value:
            raise ConfigError(_difference(name, part, found.get(part), value))
    return study


def _difference(name: str, part: str, found: Any, own: Any) -> str:
    """Say what a study was begun with and what is asked now."""
    if part == "data":
        place = next(place for place in (0, 1) if (found or ("", ""))[place] != own[place])
        what = "training" if place == 0 else "validation"
        return f"the study {name!r} was begun with another {what} log. Give that log, or another --study"
    flags = {"fixed": "-fp", "space": "-opf", "metric": "-pm", "k": "-m", "mode": "-e"}
    return (
        f"the study {name!r} was begun with {flags.get(part, f'--{part}')} {json.dumps(found)}, and now it is "
        f"{json.dumps(own)}. Give the same, or another --study"
    )
