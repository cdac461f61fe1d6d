"""Search spaces: which values of which settings a tuner may try. The files of ``paramspaces/``, or the same in Python.

Knows no models; optuna is the caller's.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal, Protocol

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from gru4rec.errors import ConfigError


class Trial(Protocol):
    """What of an optuna trial is used here."""

    def suggest_int(self, name: str, low: int, high: int, *, step: int, log: bool) -> int:
        """Draw a whole number."""

    def suggest_float(self, name: str, low: float, high: float, *, step: float | None, log: bool) -> float:
        """Draw a number."""

    def suggest_categorical(self, name: str, choices: list[Any]) -> Any:
        """Draw one of some values."""


class Dimension(BaseModel):
    """The values of one setting.

    Attributes:
        name: Of the setting.
        dtype: ``int`` and ``float``: ``values`` are the lowest and the highest; ``categorical``: ``values`` are all.
        values: See ``dtype``.
        step: Distance between values that are tried; none: 1 for int, any number for float.
        log: Whether small values are tried as often as large ones of the same ratio.
        when: The setting is drawn only where these other settings, drawn before or fixed, have this value, or one of
            these; otherwise it keeps its default.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    name: str
    dtype: Literal["int", "float", "categorical"]
    values: tuple[Any, ...]
    step: float | None = None
    log: bool = False
    when: dict[str, Any] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _fit_together(self) -> Dimension:
        if self.dtype == "categorical":
            if not self.values or self.step is not None or self.log:
                raise ValueError("a categorical setting has one or more values, no step and no log")
            return self
        numbers = all(isinstance(value, int | float) and not isinstance(value, bool) for value in self.values)
        if len(self.values) != 2 or not numbers or not self.values[0] <= self.values[1]:
            raise ValueError("values are the lowest and the highest number")
        whole = (*self.values, self.step or 1)
        if self.dtype == "int" and any(value != int(value) for value in whole):
            raise ValueError("an int has whole numbers")
        if (self.step is not None and self.step <= 0) or (self.log and (self.values[0] <= 0 or self.step is not None)):
            raise ValueError("a step is above 0, and log needs values above 0 and no step")
        return self

    def suggest(self, trial: Trial) -> Any:
        """Draw a value."""
        if self.dtype == "categorical":
            return trial.suggest_categorical(self.name, [as_choice(value) for value in self.values])
        low, high = self.values
        if self.dtype == "int":
            return trial.suggest_int(self.name, int(low), int(high), step=int(self.step or 1), log=self.log)
        value = trial.suggest_float(self.name, low, high, step=self.step, log=self.log)
        return value if self.step is None else float(f"{value:.12g}")  # 0.3, not 0.30000000000000004

    def holds(self, value: Any) -> bool:
        """Tell whether a value lies in this dimension; whether it is a multiple of the step is not asked.

        Example:
            >>> Dimension(name="layers", dtype="int", values=(64, 512)).holds(100)
            True
        """
        if self.dtype == "categorical":
            return as_choice(value) in [as_choice(choice) for choice in self.values]
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        return (
            is_number and self.values[0] <= value <= self.values[1] and (self.dtype == "float" or value == int(value))
        )

    def applies(self, settings: Mapping[str, Any]) -> bool:
        """Tell whether the settings so far let this one be drawn."""
        return all(
            name in settings and as_choice(settings[name]) in [as_choice(value) for value in _listed(wanted)]
            for name, wanted in self.when.items()
        )


def as_choice(value: Any) -> Any:
    """Return a value as tuners keep it: a list of layer sizes becomes the text of a parameter string.

    Example:
        >>> as_choice([200, 100])
        '200/100'
    """
    return "/".join(map(str, value)) if isinstance(value, list | tuple) else value


def draw(space: Iterable[Dimension], trial: Trial, fixed: Mapping[str, Any]) -> dict[str, Any]:
    """Draw all settings of a space that apply, and put them after the fixed ones."""
    settings = dict(fixed)
    for dimension in space:
        if dimension.applies(settings):
            settings[dimension.name] = dimension.suggest(trial)
    return settings


def space_of(
    dimensions: Iterable[Mapping[str, Any]], *, where: str, conditional: bool = False
) -> tuple[Dimension, ...]:
    """Check a space.

    Args:
        dimensions: A mapping a setting: name, dtype, values, and step, log or when where wanted.
        where: What messages call their source.
        conditional: The caller draws with :func:`draw`, which heeds ``when``. Others may not have conditions.

    Raises:
        ConfigError: One of them cannot be used, a name stands twice, or there is none.
    """
    space = []
    for place, dimension in enumerate(dimensions, start=1):
        try:
            space.append(Dimension(**dimension))
        except (ValidationError, TypeError) as error:
            reason = _reason(error.errors()[0]) if isinstance(error, ValidationError) else str(error)
            called = f" ({dimension['name']})" if isinstance(dimension.get("name"), str) else ""
            raise ConfigError(
                f"setting {place}{called} of the search space in {where} cannot be used: {reason}. Write "
                '{"name": "layers", "dtype": "int", "values": [64, 512], "step": 32}'
            ) from None
    names = [dimension.name for dimension in space]
    twice = [name for name in names if names.count(name) > 1]
    if twice or not names:
        what = f"has {twice[0]!r} twice" if twice else "is empty"
        raise ConfigError(f"the search space in {where} {what}. Give each setting once")
    for found in space:
        if found.when and not conditional:
            raise ConfigError(
                f"{found.name!r} of the search space in {where} has a condition (when), which is for gru4rec tune. "
                "Leave it out"
            )
    return tuple(space)


def read_space(path: str | Path, *, conditional: bool = False) -> tuple[Dimension, ...]:
    """Read a space file: a JSON object a line, such as those in ``paramspaces/``.

    Args:
        path: The file.
        conditional: See :func:`space_of`.

    Raises:
        ConfigError: The file cannot be read or used.
    """
    try:
        lines = [line for line in Path(path).read_text(encoding="utf-8-sig").splitlines() if line.strip()]
        dimensions = [json.loads(line) for line in lines]
    except OSError as error:
        raise ConfigError(f"cannot read search space {path}: {error.strerror}. Check the path") from None
    except ValueError as error:
        raise ConfigError(f"search space {path} is not JSON, an object a line: {error}") from None
    if not all(isinstance(dimension, dict) for dimension in dimensions):
        raise ConfigError(f"search space {path} is not JSON, an object a line")
    return space_of(dimensions, where=str(path), conditional=conditional)


def _reason(found: Any) -> str:
    """Word what pydantic found."""
    name = ".".join(map(str, found["loc"]))
    if found["type"] == "extra_forbidden":
        return f"it has no {name!r} (it has: {', '.join(Dimension.model_fields)})"
    if found["type"] == "missing":
        return f"{name!r} is missing"
    if found["type"] == "value_error":
        return str(found["ctx"]["error"])
    return f"{name}={found['input']!r}: {found['msg'][0].lower()}{found['msg'][1:]}"


def _listed(wanted: Any) -> list[Any]:
    return wanted if isinstance(wanted, list) else [wanted]
