"""The plan of a comparison: a TOML file, checked whole before anything is computed.

Knows no logs and no scorers.
"""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from gru4rec.baselines.files import HYBRID
from gru4rec.baselines.kinds import KINDS, baseline_settings, checked
from gru4rec.baselines.settings import HybridSettings
from gru4rec.compare.plan_file import DataPlan, EvaluationPlan, ModelPlan, Part, PlanFile, worded
from gru4rec.config import DEFAULT_SEED, hyper_parameters, read_parameter_file, setting_values
from gru4rec.errors import ConfigError
from gru4rec.evaluate.metrics import METRICS
from gru4rec.tune.space import Dimension, read_space, space_of

GRU4REC, SAVED = "gru4rec", "saved"
MODEL_KINDS = (GRU4REC, *KINDS, HYBRID, SAVED)


class Row(Part):
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


class Plan(Part):
    """A comparison, ready to be carried out.

    Attributes:
        source: What messages call the file.
        text: Of the file.
        title: Of the report.
        data: Paths are absolute.
        evaluation: How it is measured.
        primary: Metric and list length that models are sorted by.
        n_trials: Settings of every model that are tried.
        judged_by: Metrics and list lengths whose sum tells how good settings are.
        rows: The models.
    """

    source: str
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
        raise ConfigError("; ".join(worded(detail, values, path) for detail in error.errors())) from None
    _check_candidates(file.evaluation, path)
    rows = tuple(_row(model, file, path) for model in file.models)
    _check_names(rows, path)
    plan = Plan(
        source=f"plan {path}",
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
    _check_all_is_read(file, plan)
    return plan


def _check_candidates(evaluation: EvaluationPlan, path: Path) -> None:
    if evaluation.candidates is None:
        return
    if evaluation.targets == "remaining":
        raise ConfigError(f"plan {path}: candidates are sampled for the next item only. Leave candidates out")
    if evaluation.candidates < max(evaluation.k):
        raise ConfigError(
            f"plan {path}: candidates = {evaluation.candidates} are too few for lists of {max(evaluation.k)}. "
            f"Give {max(evaluation.k)} or more, or leave candidates out"
        )


def _check_all_is_read(file: PlanFile, plan: Plan) -> None:
    """Refuse what has no effect beside the rest of the plan."""
    if file.tuning.metric is not None and not file.tuning.trials:
        raise ConfigError(
            f"{plan.source}: tuning.metric has no effect without tuning.trials. Leave it out, or give trials"
        )
    given = file.data.model_fields_set
    if "valid_share" in given and plan.data.train_valid is not None:
        raise ConfigError(
            f"{plan.source}: data.valid_share has no effect, as there are train_tr and train_valid. Leave it out"
        )
    for name in ("valid_share", "train_tr"):
        if name in given and not plan.needs_valid:
            raise ConfigError(
                f"{plan.source}: data.{name} has no effect, as no model is tuned or blended. Leave it out, or give "
                "tuning.trials"
            )


def _measure(text: str, evaluation: EvaluationPlan, path: Path, name: str) -> tuple[str, int]:
    """Split ``recall@20``."""
    metric, _, k = text.partition("@")
    if metric not in METRICS or not k.isdecimal() or int(k) not in evaluation.k:
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
    if model.space is not None and not (file.tuning.trials and model.tune):
        reason = "beside tune = false" if file.tuning.trials else "without tuning.trials"
        raise ConfigError(f"{where}: space has no effect {reason}. Leave it out")
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
        "space": {GRU4REC, *KINDS},
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
        if model.kind == GRU4REC and dimension.name == "seed":
            raise ConfigError(f"{where}: seed in space has no effect, as seeds decide it. Leave it out of the space")
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
                named = [other.name for other in by_name.values() if other.kind == part and part in kinds]
                advice = f"Call it {named[0]!r}" if named else f"There are: {', '.join(by_name) or 'none'}"
                raise ConfigError(
                    f"plan {path}: {row.name!r} is made of {part!r}, which is no model of kind "
                    f"{' or '.join(sorted(kinds))} that stands before it. {advice}"
                )
        by_name[row.name] = row
