"""Hyper-parameters: each declared once, with its type, range, default and one line of documentation.

Parameter strings (``-ps``), parameter files (``-pf``), the flags of ``gru4rec train`` and the table in the docs all
derive from :class:`HyperParameters`. This module knows nothing of data, torch or files other than parameter files.
"""

from __future__ import annotations

import ast
import difflib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StrictBool,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)

from gru4rec.errors import ConfigError

InputMode = Literal["shared", "separate", "none"]

Engine = Literal["auto", "fast", "plain"]
ENGINES: tuple[Engine, ...] = get_args(Engine)
"""Which training step runs; all compute the same up to rounding."""

Precision = Literal["float32", "tf32", "bf16"]
PRECISIONS: tuple[Precision, ...] = get_args(Precision)
"""Of the matrix products in training; weights, their accumulators and evaluation keep the model's number type."""

Tables = Literal["device", "host"]
TABLES: tuple[Tables, ...] = get_args(Tables)
"""Where item matrices are while a GPU trains: there, or in host memory, from which the rows that are touched visit."""

DEFAULT_SEED = 42
"""Seeds the random draws of a run whose ``seed`` is not given, and the compatibility weights always."""


def _split_layers(value: object) -> object:
    """Accept ``100``, ``"200/100"`` and any sequence of numbers as the list of layer sizes."""
    if isinstance(value, str):
        return value.split("/")
    if isinstance(value, int) and not isinstance(value, bool):
        return [value]
    return value


def _true_or_false(value: object) -> object:
    """Accept the words True and False in any case; everything else is left for the type check to judge."""
    words = {"true": True, "false": False}
    return words.get(value.lower(), value) if isinstance(value, str) else value


def _none_word(value: object) -> object:
    return None if isinstance(value, str) and value.lower() == "none" else value


_LIMIT = 2**31
"""Sizes and counts stay below this: item indices and lanes are 32-bit integers."""

Layers = Annotated[
    tuple[Annotated[int, Field(ge=1, lt=_LIMIT)], ...], BeforeValidator(_split_layers), Field(min_length=1)
]
Switch = Annotated[StrictBool, BeforeValidator(_true_or_false)]


class HyperParameters(BaseModel):
    """Everything that decides what a training run computes. Immutable; see each field's description.

    Raises:
        ConfigError: From :func:`hyper_parameters`, which is the door to use: it names every wrong value at once.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    layers: Layers = Field((100,), description="Sizes of the GRU layers, first to last; 200/100 in a parameter string.")
    loss: Literal["cross-entropy", "bpr-max"] = Field(
        "cross-entropy", description="Training loss; it also decides the final activation."
    )
    batch_size: int = Field(64, ge=1, lt=_LIMIT, description="Sessions trained side by side (lanes).")
    dropout_p_embed: float = Field(0.0, ge=0, lt=1, description="Dropout probability of the input vectors.")
    dropout_p_hidden: float = Field(0.0, ge=0, lt=1, description="Dropout probability of each GRU layer's output.")
    learning_rate: float = Field(0.05, gt=0, description="Adagrad's step size.")
    momentum: float = Field(0.0, ge=0, lt=1, description="Share of the last update that is repeated; 0 turns it off.")
    sample_alpha: float = Field(
        0.5, ge=0, le=10, description="Negatives are drawn in proportion to support^sample_alpha; 0 is uniform."
    )
    n_sample: Annotated[int, Field(ge=0, lt=_LIMIT)] | Literal["all"] = Field(
        2048,
        description="Sampled negatives per step, shared by all lanes; 0 leaves only the other lanes' targets; "
        "'all' samples nothing: every item is a negative.",
    )
    embedding: Annotated[int, Field(ge=0, lt=_LIMIT)] | Literal["layersize"] = Field(
        0, description="Size of a separate input embedding; 'layersize' is the first layer's size; 0 is none."
    )
    constrained_embedding: Switch = Field(True, description="Use the output item matrix as input embedding too.")
    n_epochs: int = Field(10, ge=1, lt=_LIMIT, description="Passes over the training sessions.")
    bpreg: float = Field(1.0, ge=0, description="Strength of BPR-max's score penalty; 0 turns it off.")
    elu_param: float = Field(0.5, ge=0, description="Alpha of the ELU on BPR-max's scores; 0 leaves them linear.")
    logq: float = Field(0.0, ge=0, description="Strength of cross-entropy's correction for popularity sampling.")
    gru_variant: Literal["reset_after", "reset_before"] = Field(
        "reset_after", description="Where the reset gate acts in layers with a dense input."
    )
    grad_accumulation: int = Field(1, ge=1, lt=_LIMIT, description="Steps whose mean gradient is applied at once.")
    seed: Annotated[int, Field(ge=0, lt=2**63)] | None = Field(
        None, description="Seed of weights and draws; none: the compatibility weights, and draws seeded with 42."
    )

    @property
    def corrects_sampling(self) -> bool:
        """Whether scores are corrected for sampling by popularity: logq belongs to cross-entropy."""
        return self.loss == "cross-entropy" and self.logq > 0

    @model_validator(mode="before")
    @classmethod
    def _seed_may_be_none(cls, values: Any) -> Any:
        if isinstance(values, Mapping) and "seed" in values:
            return {**values, "seed": _none_word(values["seed"])}
        return values

    @field_validator("*", mode="before")
    @classmethod
    def _true_is_no_number(cls, value: Any, info: ValidationInfo) -> Any:
        if info.field_name in ("constrained_embedding", "loss", "gru_variant"):
            return value
        parts = value if isinstance(value, list | tuple) else [value]
        if any(isinstance(part, bool | bytes) for part in parts):
            raise ValueError("not a number")
        return value

    @model_validator(mode="after")
    def _fit_together(self) -> HyperParameters:
        if self.constrained_embedding and self.embedding != 0:
            raise ValueError(
                f"embedding={self.embedding} has no effect with constrained_embedding=True. "
                "Set constrained_embedding=False, or embedding=0"
            )
        if self.n_sample == "all" and self.logq > 0:
            raise ValueError("logq corrects for sampling, and n_sample=all has none. Set logq=0, or sample a number")
        if self.n_sample == 0 and self.batch_size == 1:
            raise ValueError("n_sample=0 with batch_size=1 leaves no negative to learn from. Raise one of them")
        return self

    @property
    def input_mode(self) -> InputMode:
        """Where input vectors come from: ``shared`` output rows, a ``separate`` matrix, or ``none`` (one-hot)."""
        if self.constrained_embedding:
            return "shared"
        return "none" if self.embedding == 0 else "separate"

    @property
    def embedding_size(self) -> int:
        """Size of the first dense layer's input vectors, in numbers; in mode ``none`` that of the first layer."""
        if self.input_mode == "shared":
            return self.layers[-1]
        if self.input_mode == "none" or self.embedding == "layersize":
            return self.layers[0]
        return int(self.embedding)

    @property
    def draw_seed(self) -> int:
        """Seed of every random draw but the compatibility weights."""
        return DEFAULT_SEED if self.seed is None else self.seed


def hyper_parameters(values: Mapping[str, Any], *, where: str = "the settings") -> HyperParameters:
    """Check settings and fill in the defaults.

    Args:
        values: Settings by name; text is converted (``"0.1"``, ``"200/100"``, ``"True"``).
        where: What the message should name as their source, such as ``-ps``.

    Raises:
        ConfigError: An unknown name or a wrong value; all of them are named in one message.

    Example:
        >>> hyper_parameters({"layers": "200/100"}).layers
        (200, 100)
    """
    unknown = [name for name in values if name not in HyperParameters.model_fields]
    if unknown:
        raise ConfigError("; ".join(_unknown_name(name, where) for name in unknown))
    try:
        return HyperParameters(**values)
    except ValidationError as error:
        findings = dict.fromkeys(_describe(detail, values, where) for detail in error.errors())  # each once
        raise ConfigError("; ".join(findings)) from None


def setting_values(settings: HyperParameters) -> dict[str, Any]:
    """Return the settings as plain values that JSON can hold, layers as a list.

    Example:
        >>> setting_values(HyperParameters())["layers"]
        [100]
    """
    return {**settings.model_dump(), "layers": list(settings.layers)}


def parse_parameter_string(text: str) -> dict[str, str]:
    """Split ``a=1,b=2`` into names and texts, in the order given.

    Raises:
        ConfigError: A part without ``=``, an empty name, or a name given twice.

    Example:
        >>> parse_parameter_string("layers=200/100,loss=bpr-max")
        {'layers': '200/100', 'loss': 'bpr-max'}
    """
    values: dict[str, str] = {}
    for part in text.split(","):
        name, equals, value = (piece.strip() for piece in part.partition("="))
        if not equals or not name or not value:
            raise ConfigError(
                f"cannot read {part!r} in -ps {text!r}. Write name=value pairs, such as layers=100,loss=bpr-max"
            )
        if name in values:
            raise ConfigError(f"{name!r} stands twice in -ps {text!r}. Give it once")
        values[name] = value
    return values


def read_parameter_file(path: str | Path, *, flag: str = "-pf") -> dict[str, Any]:
    """Read the ``gru4rec_params`` of a parameter file as data; nothing in the file is executed.

    Args:
        path: A Python file that assigns an OrderedDict (or dict) of literal values to ``gru4rec_params``.
        flag: What messages call the option that named it.

    Raises:
        ConfigError: The file cannot be read, is not Python, lacks ``gru4rec_params``, or would have to be executed.
    """
    try:
        source = Path(path).read_text(encoding="utf-8-sig")
        tree = ast.parse(source)
    except OSError as error:
        raise ConfigError(
            f"cannot read parameter file {path}: {error.strerror}. Check the path given to {flag}"
        ) from None
    except (UnicodeDecodeError, ValueError, SyntaxError, RecursionError, MemoryError) as error:
        raise ConfigError(
            f"parameter file {path} is not a Python file ({error}). See paramfiles/ for examples"
        ) from None
    found: dict[str, Any] | None = None
    for statement in tree.body:
        if _is_harmless(statement):
            continue
        if not isinstance(statement, ast.Assign) or not _assigns_params(statement) or found is not None:
            raise ConfigError(
                f"parameter file {path}, line {statement.lineno}, would have to be executed, which is never done. "
                "Keep one assignment: gru4rec_params = OrderedDict([('layers', [100]), ...]) with literal values"
            )
        found = _literal_pairs(statement.value, path)
    if found is None:
        raise ConfigError(f"no gru4rec_params in parameter file {path}. Add gru4rec_params = OrderedDict([...])")
    return found


def _is_harmless(statement: ast.stmt) -> bool:
    """Tell whether a statement means nothing for us: an import of OrderedDict, a docstring, ``pass``."""
    if isinstance(statement, ast.ImportFrom):
        return statement.module == "collections"
    if isinstance(statement, ast.Import):
        return all(name.name == "collections" for name in statement.names)
    return isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)


def _assigns_params(statement: ast.Assign) -> bool:
    names = [getattr(target, "id", None) for target in statement.targets]
    return names == ["gru4rec_params"]


def _literal_pairs(node: ast.expr, path: str | Path) -> dict[str, Any]:
    """Turn ``OrderedDict([...])``, ``OrderedDict(a=1)``, ``dict(...)`` or a dict display into a dict."""
    try:
        if isinstance(node, ast.Call) and _called_name(node) in ("OrderedDict", "dict") and len(node.args) <= 1:
            listed = ast.literal_eval(node.args[0]) if node.args else {}
            pairs = dict(listed)
            n_given = len(listed) + len(node.keywords)
            pairs.update({keyword.arg or "**": ast.literal_eval(keyword.value) for keyword in node.keywords})
        else:
            pairs = {**ast.literal_eval(node)}
            n_given = len(pairs)
    except (ValueError, TypeError, SyntaxError, RecursionError, MemoryError):
        raise ConfigError(
            f"gru4rec_params in parameter file {path}, line {node.lineno}, is not an OrderedDict of literal values "
            "only, and code is never executed. Write numbers, texts, True, False and lists"
        ) from None
    if len(pairs) < n_given:
        raise ConfigError(f"gru4rec_params in parameter file {path} has a name that stands twice. Give it once")
    if not all(isinstance(name, str) for name in pairs):
        raise ConfigError(
            f"gru4rec_params in parameter file {path} has a name that is not text. Write ('layers', [100])"
        )
    return pairs


def _called_name(call: ast.Call) -> str:
    """Name of the called function: ``OrderedDict`` also when written ``collections.OrderedDict``."""
    return call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")


def _nearest(word: str, choices: list[str]) -> str:
    close = difflib.get_close_matches(word, choices, n=1)
    return f"; did you mean {close[0]!r}?" if close else ""


def _unknown_name(name: str, where: str) -> str:
    names = list(HyperParameters.model_fields)
    hint = _nearest(name, names)
    return f"unknown parameter {name!r} in {where}. Choose from {', '.join(names)}{hint}"


def _describe(detail: Any, values: Mapping[str, Any], where: str) -> str:
    """Word one pydantic finding as: what was wrong, where, what to do."""
    if not detail["loc"]:
        return f"{detail['ctx']['error']} (in {where})"
    name, context = str(detail["loc"][0]), detail.get("ctx", {})
    value = values[name]
    if detail["type"] == "literal_error" and name not in ("embedding", "n_sample"):
        hint = _nearest(str(value), [word.strip("'") for word in context["expected"].split(" or ")])
        return f"unknown {name} {value!r} in {where} ({name}={value}). Choose {context['expected']}{hint}"
    return f"{name}={value!r} in {where} does not fit: {_requirement(name)}"


def _requirement(name: str) -> str:
    """Say in words what values a setting takes, from its declaration.

    Example:
        >>> _requirement("dropout_p_embed")
        'give a number, >= 0, < 1'
    """
    special = {
        "layers": "give whole numbers >= 1, such as 100 or 200/100",
        "embedding": "give a whole number >= 0 or 'layersize'",
        "n_sample": "give a whole number >= 0 or 'all'",
        "seed": "give a whole number >= 0, or none",
        "constrained_embedding": "give True or False",
    }
    if name in special:
        return special[name]
    field = HyperParameters.model_fields[name]
    if get_origin(field.annotation) is Literal:
        return f"give {' or '.join(get_args(field.annotation))}"
    kind = "a whole number" if field.annotation is int else "a number"
    signs = {"ge": ">=", "gt": ">", "le": "<=", "lt": "<"}
    bounds = [
        f"{sign} {getattr(rule, key)}" for rule in field.metadata for key, sign in signs.items() if hasattr(rule, key)
    ]
    return ", ".join([f"give {kind}", *bounds])


def settings_table() -> str:
    """Return the Markdown table of all settings that ``docs/settings.md`` holds."""
    rows = ["| setting | default | what it is |", "|---|---|---|"]
    for name, value in setting_values(hyper_parameters({})).items():
        requirement = _requirement(name).removeprefix("give ")
        rows.append(f"| `{name}` | `{value}` | {HyperParameters.model_fields[name].description} Takes {requirement}. |")
    return "\n".join(rows)
