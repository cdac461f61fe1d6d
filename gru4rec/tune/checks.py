"""What is wrong with a search space for GRU4Rec, found before the first trial."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from gru4rec.config import HyperParameters, hyper_parameters, read_parameter_file, setting_values
from gru4rec.errors import ConfigError
from gru4rec.tune.space import Dimension, as_choice


def check_space(space: Sequence[Dimension], fixed: Mapping[str, Any], *, where: str) -> None:
    """Make sure that every trial of a space has settings that exist.

    Args:
        space: What is drawn.
        fixed: Settings that all trials share.
        where: What messages call the space's source.

    Raises:
        ConfigError: A name is no hyper-parameter or is also fixed, a value is none that the setting takes, or a
            condition can never be asked.
    """
    known: dict[str, Dimension] = {}
    for dimension in space:
        if dimension.name in fixed:
            raise ConfigError(
                f"{dimension.name!r} is in the search space {where} and in -fp ({fixed[dimension.name]}). "
                "Leave it out of one of them"
            )
        _check_conditions(dimension, known, fixed, where)
        for value in dimension.values:
            hyper_parameters(
                {**fixed, **_conditions(dimension, known), dimension.name: as_choice(value)},
                where=f"the search space {where}",
            )
        known[dimension.name] = dimension


def read_starts(paths: Sequence[str], space: Sequence[Dimension], fixed: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Read parameter files whose settings are tried first.

    Returns:
        The drawn settings of each file.

    Raises:
        ConfigError: A file cannot be read, lacks a setting of the space, has a value outside it, or another value than
            the fixed or default one for a setting that is not drawn.
    """
    return [_start(path, space, fixed) for path in paths]


def _check_conditions(
    dimension: Dimension, known: Mapping[str, Dimension], fixed: Mapping[str, Any], where: str
) -> None:
    for name, wanted in dimension.when.items():
        about = f"the condition of {dimension.name!r} in the search space {where}"
        if name not in known and name not in fixed:
            raise ConfigError(f"{about} asks for {name!r}, which is neither drawn before it nor fixed. Add it before")
        for value in wanted if isinstance(wanted, list) else [wanted]:
            hyper_parameters({**fixed, name: as_choice(value)}, where=about)
            if name in known and not known[name].holds(value):
                raise ConfigError(
                    f"{about} asks for {name}={value}, which is never drawn (values: "
                    f"{', '.join(map(str, known[name].values))}). Give one of those"
                )


def _conditions(dimension: Dimension, known: Mapping[str, Dimension]) -> dict[str, Any]:
    """Return settings under which a dimension is drawn, and those under which these are."""
    settings: dict[str, Any] = {}
    for name, wanted in dimension.when.items():
        if name in known:
            settings |= _conditions(known[name], known)
        settings[name] = as_choice(wanted[0] if isinstance(wanted, list) else wanted)
    return settings


def _start(path: str, space: Sequence[Dimension], fixed: Mapping[str, Any]) -> dict[str, Any]:
    given = setting_values(hyper_parameters(read_parameter_file(path, flag="--start"), where=path))
    settings = setting_values(hyper_parameters(fixed))
    drawn: dict[str, Any] = {}
    for dimension in space:
        if dimension.applies({**fixed, **drawn}):
            drawn[dimension.name] = _drawn(dimension, given[dimension.name], path)
    for name in HyperParameters.model_fields:
        if name not in drawn and given[name] != settings[name]:
            raise ConfigError(
                f"{path} has {name}={as_choice(given[name])}, which the search space does not draw: trials have "
                f"{as_choice(settings[name])}. Give -fp {name}={as_choice(given[name])}, or change the file"
            )
    return drawn


def _drawn(dimension: Dimension, value: Any, path: str) -> Any:
    """Return a value as the dimension's tuner would draw it: one layer is its size."""
    one = value[0] if isinstance(value, list) and len(value) == 1 else value
    for form in (one, value):
        if dimension.holds(form):
            return int(form) if dimension.dtype == "int" else as_choice(form)
    raise ConfigError(
        f"{path} has {dimension.name}={as_choice(value)}, which is outside of the search space ("
        f"{dimension.dtype} {', '.join(map(str, dimension.values))}). Widen the space, or leave the file out"
    )


def parameter_file_text(settings: Mapping[str, Any]) -> str:
    """Return the text of a parameter file, as ``run.py -pf`` reads it.

    Example:
        >>> print(parameter_file_text({"layers": 64}), end="")
        from collections import OrderedDict
        <BLANKLINE>
        gru4rec_params = OrderedDict([
            ('layers', [64]),
        ])
    """
    values = setting_values(hyper_parameters(settings))
    lines = [f"    ({name!r}, {values[name]!r})," for name in values if name in settings]
    return "\n".join(["from collections import OrderedDict", "", "gru4rec_params = OrderedDict([", *lines, "])", ""])
