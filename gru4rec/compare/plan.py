"""The plan of a comparison: a TOML file, checked whole before anything is computed.

Knows no logs and no scorers.
"""

from __future__ import annotations

import difflib
import os
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from gru4rec.baselines.files import HYBRID
from gru4rec.baselines.kinds import KINDS, baseline_settings, checked
from gru4rec.baselines.settings import HybridSettings
from gru4rec.config import DEFAULT_SEED, hyper_parameters, read_parameter_file, setting_values
from gru4rec.errors import ConfigError
from gru4rec.evaluate.metrics import METRICS
from gru4rec.evaluate.ranks import TieMode
from gru4rec.tune.space import Dimension, read_space, space_of

GRU4REC, SAVED = "gru4rec", "saved"
MODEL_KINDS = (GRU4REC, *KINDS, HYBRID, SAVED)
MAX_MODELS = 30


def _expanded(text: Any) -> Any:
    """Put the values of $VARIABLES in."""
    if not isinstance(text, str):
        return text
    found = os.path.expandvars(text)
    unset = re.search(r"\$\{?(\w+)", found)
    if unset:
        raise ValueError(f"the variable {unset[1]} is not set. Set it (export {unset[1]}=...), or write the path")
    return found


_Expanded = Annotated[str, BeforeValidator(_expanded)]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class DataPlan(_Part):
    """Which logs: ``train``, ``test`` and, for tuning, ``train_tr`` and ``train_valid``; or a prepared folder."""

    folder: _Expanded | None = None
    train: _Expanded | None = None
    test: _Expanded | None = None
    train_tr: _Expanded | None = None
    train_valid: _Expanded | None = None
    valid_share: float = Field(0.1, gt=0, lt=1)
    session_key: str = "SessionId"
    item_key: str = "ItemId"
    time_key: str = "Time"


class EvaluationPlan(_Part):
    """How it is measured."""

    k: tuple[Annotated[int, Field(ge=1, le=1000)], ...] = Field((1, 5, 10, 20), min_length=1)
    primary: str = "recall@20"
    ties: TieMode = "conservative"
    targets: Literal["next", "remaining"] = "next"
    candidates: int | None = Field(None, ge=1)
    resamples: int = Field(2000, ge=100, le=100_000)
    permutations: int = Field(10_000, ge=100, le=1_000_000)
    level: float = Field(0.95, gt=0, lt=1)
    seed: int = Field(DEFAULT_SEED, ge=0, lt=2**63)
    examples: int = Field(8, ge=0, le=50)


class TuningPlan(_Part):
    """How many settings of every model are tried (0: none is tuned), and by what they are judged on the validation log.

    ``metric`` is one measure, such as ``recall@20``, or a sum, such as ``recall@20 + mrr@20``; left out, the primary.
    """

    trials: int = Field(0, ge=0, le=100_000)
    metric: str | None = None


class ModelPlan(_Part):
    """One row of the comparison."""

    kind: str
    name: str | None = Field(None, min_length=1, max_length=60)
    settings: dict[str, Any] = Field(default_factory=dict)
    parameter_file: _Expanded | None = None
    seeds: tuple[Annotated[int, Field(ge=0, lt=2**63)], ...] = ()
    tune: bool = True
    space: _Expanded | list[dict[str, Any]] | None = None
    model: str | None = None
    neighbours: str | None = None
    path: _Expanded | None = None


class PlanFile(_Part):
    """The whole file."""

    title: str | None = None
    data: DataPlan
    evaluation: EvaluationPlan = Field(default_factory=lambda: EvaluationPlan.model_validate({}))
    tuning: TuningPlan = Field(default_factory=lambda: TuningPlan.model_validate({}))
    models: list[ModelPlan] = Field(min_length=1, max_length=MAX_MODELS)


class Row(_Part):
    """A model of the plan, its settings checked.

    Attributes:
        name: What the report calls it.
        kind: One of MODEL_KINDS.
        settings: All of them, defaults filled in; empty where a hybrid's are to be chosen.
        seeds: Seeds that it is trained with; one without meaning where nothing is random.
        space: What is tried where it is tuned; None: it is not.
        model: Name of the hybrid's GRU4Rec.
        neighbours: Name of the hybrid's session kNN.
        path: Of the saved model.
    """

    name: str
    kind: str
    settings: dict[str, Any]
    seeds: tuple[int, ...]
    space: tuple[Dimension, ...] | None = None
    model: str | None = None
    neighbours: str | None = None
    path: str | None = None


class Plan(_Part):
    """A comparison, ready to be carried out.

    Attributes:
        text: Of the file.
        title: Of the report.
        data: Paths are absolute.
        evaluation: How it is measured.
        primary: Metric and list length that models are sorted by.
        n_trials: Settings of every model that are tried.
        judged_by: Metrics and list lengths whose sum tells how good settings are.
        rows: The models.
    """

    text: str
    title: str
    data: DataPlan
    evaluation: EvaluationPlan
    primary: tuple[str, int]
    n_trials: int
    judged_by: tuple[tuple[str, int], ...]
    rows: tuple[Row, ...]

    @property
    def needs_valid(self) -> bool:
        """Whether a validation log is used: to tune, or to choose a hybrid's settings."""
        return any(row.space is not None or (row.kind == HYBRID and not row.settings) for row in self.rows)


def read_plan(path: str | Path) -> Plan:
    """Read and check a plan; paths in it are relative to its folder, and may hold $VARIABLES.

    Raises:
        ConfigError: The file cannot be read, or something in it cannot be used; the message says what to do.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8")
        values = tomllib.loads(text)
    except OSError as error:
        raise ConfigError(f"cannot read plan {path}: {error.strerror}. Check the path") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"plan {path} is not TOML: {error}") from None
    try:
        file = PlanFile(**values)
    except ValidationError as error:
        raise ConfigError("; ".join(_worded(detail, path) for detail in error.errors())) from None
    if file.evaluation.candidates is not None and file.evaluation.targets == "remaining":
        raise ConfigError(f"plan {path}: candidates are sampled for the next item only. Leave candidates out")
    rows = tuple(_row(model, file, path) for model in file.models)
    _check_names(rows, path)
    return Plan(
        text=text,
        title=file.title or path.stem,
        data=_absolute(file.data, path),
        evaluation=file.evaluation,
        primary=_measure(file.evaluation.primary, file.evaluation, path, "primary"),
        n_trials=file.tuning.trials,
        judged_by=tuple(
            _measure(part.strip(), file.evaluation, path, "tuning.metric")
            for part in (file.tuning.metric or file.evaluation.primary).split("+")
        ),
        rows=rows,
    )


def _worded(detail: Any, path: Path) -> str:
    """Word one pydantic finding."""
    place = ".".join(str(part + 1) if isinstance(part, int) else part for part in detail["loc"])
    if detail["type"] == "extra_forbidden":
        classes: dict[str, type[BaseModel]] = {
            "data": DataPlan, "evaluation": EvaluationPlan, "tuning": TuningPlan, "models": ModelPlan,
        }  # fmt: skip
        inside = classes.get(str(detail["loc"][0]), PlanFile) if len(detail["loc"]) > 1 else PlanFile
        names = list(inside.model_fields)
        close = difflib.get_close_matches(str(detail["loc"][-1]), names, n=1)
        hint = f"; did you mean {close[0]!r}?" if close else ""
        return f"plan {path}: nothing reads {place}. Choose from: {', '.join(names)}{hint}"
    if detail["type"] == "missing":
        return f"plan {path}: {place} is missing"
    reason = detail["msg"].removeprefix("Value error, ")
    return f"plan {path}: {place} = {detail['input']!r} does not fit: {reason[0].lower()}{reason[1:]}"


def _measure(text: str, evaluation: EvaluationPlan, path: Path, name: str) -> tuple[str, int]:
    """Split ``recall@20``."""
    metric, _, k = text.partition("@")
    if metric not in METRICS or not k.isdigit() or int(k) not in evaluation.k:
        raise ConfigError(
            f"plan {path}: {name} = {text!r} is not measured. Write one of {', '.join(METRICS)}, @ and one of "
            f"k = {list(evaluation.k)}, such as recall@{evaluation.k[-1]}"
        )
    return metric, int(k)


def _absolute(data: DataPlan, path: Path) -> DataPlan:
    """Make paths absolute; fill in the logs of a prepared folder."""
    found: dict[str, Any] = {}
    if data.folder is not None:
        if data.train or data.test or data.train_tr or data.train_valid:
            raise ConfigError(f"plan {path}: data.folder beside single logs. Give the folder, or the logs")
        found = _prepared(path.parent / data.folder)
    else:
        for name in ("train", "test", "train_tr", "train_valid"):
            if (value := getattr(data, name)) is not None:
                found[name] = str(path.parent / value)
    if "train" not in found or "test" not in found:
        raise ConfigError(f"plan {path}: data needs train and test, or a folder that gru4rec prepare made")
    if ("train_tr" in found) != ("train_valid" in found):
        raise ConfigError(f"plan {path}: train_tr and train_valid belong together. Give both, or neither")
    return data.model_copy(update=found)


def _prepared(folder: Path) -> dict[str, str]:
    names = {"train": "train_full", "test": "test", "train_tr": "train_tr", "train_valid": "train_valid"}
    found: dict[str, str] = {}
    for role, name in names.items():
        logs = sorted(folder.glob(f"{name}.*"))
        if logs:
            found[role] = str(logs[0])
    if not {"train", "test"} <= found.keys():
        raise ConfigError(
            f"{folder} has no train_full and test. Make them with gru4rec prepare, or name train and test"
        )
    return found


def _row(model: ModelPlan, file: PlanFile, path: Path) -> Row:
    """Check one model."""
    if model.kind not in MODEL_KINDS:
        close = difflib.get_close_matches(model.kind, MODEL_KINDS, n=1)
        hint = f"; did you mean {close[0]!r}?" if close else ""
        raise ConfigError(f"plan {path}: unknown kind {model.kind!r}. Choose from {', '.join(MODEL_KINDS)}{hint}")
    name = model.name or (KINDS[model.kind].label if model.kind in KINDS else model.kind)
    where = f"plan {path}, model {name!r}"
    _check_fields(model, where)
    settings = {**(read_parameter_file(path.parent / model.parameter_file) if model.parameter_file else {})}
    settings |= model.settings
    space = _space(model, file, path, where) if file.tuning.trials and model.tune else None
    return Row(
        name=name,
        kind=model.kind,
        settings=_checked_settings(model.kind, settings, where),
        seeds=model.seeds or ((DEFAULT_SEED,) if model.kind == GRU4REC else (0,)),
        space=space,
        model=model.model,
        neighbours=model.neighbours,
        path=None if model.path is None else str(path.parent / model.path),
    )


def _check_fields(model: ModelPlan, where: str) -> None:
    """Refuse what would have no effect, and ask for what is missing."""
    belongs = {
        "parameter_file": {GRU4REC},
        "seeds": {GRU4REC},
        "model": {HYBRID},
        "neighbours": {HYBRID},
        "path": {SAVED},
    }
    for field, kinds in belongs.items():
        given = bool(getattr(model, field))
        if given and model.kind not in kinds:
            raise ConfigError(f"{where}: {field} has no effect on a {model.kind}. Leave it out")
        if not given and model.kind in kinds and field in ("model", "neighbours", "path"):
            raise ConfigError(f"{where}: {field} is missing")
    if model.kind == SAVED and model.settings:
        raise ConfigError(f"{where}: the settings of a saved model are in its file. Leave them out")
    if len(set(model.seeds)) < len(model.seeds):
        raise ConfigError(f"{where}: a seed stands twice. Give each once")
    if "seed" in model.settings and model.kind == GRU4REC:
        raise ConfigError(f"{where}: write seeds = [{model.settings['seed']}] beside settings, not a seed among them")


def _space(model: ModelPlan, file: PlanFile, path: Path, where: str) -> tuple[Dimension, ...] | None:
    if isinstance(model.space, str):
        space = read_space(path.parent / model.space)
    elif model.space is not None:
        space = space_of(model.space, where=where)
    elif model.kind in KINDS:
        return space_of(KINDS[model.kind].space, where=where) if KINDS[model.kind].space else None
    elif model.kind == GRU4REC:
        raise ConfigError(
            f"{where}: to tune it, name a search space, such as "
            "space = 'paramspaces/gru4rec_xe_standard_parspace.json', or write tune = false"
        )
    else:
        return None
    for dimension in space:
        for value in dimension.values:
            _checked_settings(model.kind, {dimension.name: value}, where)
    return space


def _checked_settings(kind: str, values: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Return all settings, defaults filled in."""
    if kind == GRU4REC:
        return setting_values(hyper_parameters(values, where=where))
    if kind == HYBRID:
        return checked(HybridSettings, values, where).model_dump(mode="json") if values else {}
    if kind == SAVED:
        return {}
    return baseline_settings(kind, values, where=where).model_dump(mode="json")


def _check_names(rows: tuple[Row, ...], path: Path) -> None:
    """Make sure that names are distinct, and that a hybrid's parts stand before it."""
    by_name: dict[str, Row] = {}
    for row in rows:
        if row.name in by_name:
            raise ConfigError(f"plan {path}: two models are called {row.name!r}. Give one of them another name")
        for part, kinds in ((row.model, {GRU4REC}), (row.neighbours, {"sknn", "vsknn", "vmisknn", "stan"})):
            if part is not None and (part not in by_name or by_name[part].kind not in kinds):
                raise ConfigError(
                    f"plan {path}: {row.name!r} is made of {part!r}, which is no model of kind "
                    f"{' or '.join(sorted(kinds))} that stands before it. There are: {', '.join(by_name) or 'none'}"
                )
        by_name[row.name] = row
