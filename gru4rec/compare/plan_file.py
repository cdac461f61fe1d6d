"""The shape of a plan's file: its tables, their keys and defaults. What they mean together is checked in ``plan``."""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from gru4rec.config import DEFAULT_SEED
from gru4rec.evaluate.ranks import TieMode

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


class Part(BaseModel):
    """What all tables have in common: they are frozen, and unknown keys are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class DataPlan(Part):
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


class EvaluationPlan(Part):
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


class TuningPlan(Part):
    """How many settings of every model are tried (0: none is tuned), and by what they are judged on the validation log.

    ``metric`` is one measure, such as ``recall@20``, or a sum, such as ``recall@20 + mrr@20``; left out, the primary.
    """

    trials: int = Field(0, ge=0, le=100_000)
    metric: str | None = None


class ModelPlan(Part):
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


class PlanFile(Part):
    """The whole file."""

    title: str | None = None
    data: DataPlan
    evaluation: EvaluationPlan = Field(default_factory=lambda: EvaluationPlan.model_validate({}))
    tuning: TuningPlan = Field(default_factory=lambda: TuningPlan.model_validate({}))
    models: list[ModelPlan] = Field(min_length=1, max_length=MAX_MODELS)


def worded(detail: Any, values: Mapping[str, Any], path: Path) -> str:
    """Word what pydantic found at one place of the file; ``values`` are the whole file's."""
    loc = detail["loc"]
    of_model = f" of {_model_named(values, loc[1])}" if loc[0] == "models" and len(loc) > 2 else ""
    place = ".".join(map(str, loc[2:] if of_model else loc)) + of_model
    if detail["type"] == "extra_forbidden":
        classes: dict[str, type[BaseModel]] = {
            "data": DataPlan, "evaluation": EvaluationPlan, "tuning": TuningPlan, "models": ModelPlan,
        }  # fmt: skip
        inside = classes.get(str(loc[0]), PlanFile) if len(loc) > 1 else PlanFile
        names = list(inside.model_fields)
        close = difflib.get_close_matches(str(loc[-1]), names, n=1)
        hint = f"; did you mean {close[0]!r}?" if close else ""
        return f"plan {path}: nothing reads {place}. Choose from: {', '.join(names)}{hint}"
    if detail["type"] == "missing":
        return f"plan {path}: {place} is missing"
    reason = detail["msg"].removeprefix("Value error, ")
    return f"plan {path}: {place} = {detail['input']!r} does not fit: {reason[0].lower()}{reason[1:]}"


def _model_named(values: Mapping[str, Any], place: int) -> str:
    """Return what the reader calls a model of the file: its name, or its kind, or its place from 1."""
    model = values["models"][place]
    called = model.get("name") or model.get("kind") if isinstance(model, dict) else None
    return f"model {called!r}" if called else f"model {place + 1}"
