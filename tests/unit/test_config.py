"""Hyper-parameters: declared values, parameter strings, parameter files and space files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT
from pydantic import ValidationError

from gru4rec.config import (
    HyperParameters,
    hyper_parameters,
    parse_parameter_string,
    read_parameter_file,
    setting_values,
)
from gru4rec.errors import ConfigError

# The table of the known program, copied by hand.
DEFAULTS = {
    "layers": [100],
    "loss": "cross-entropy",
    "batch_size": 64,
    "dropout_p_embed": 0.0,
    "dropout_p_hidden": 0.0,
    "learning_rate": 0.05,
    "momentum": 0.0,
    "sample_alpha": 0.5,
    "n_sample": 2048,
    "embedding": 0,
    "constrained_embedding": True,
    "n_epochs": 10,
    "bpreg": 1.0,
    "elu_param": 0.5,
    "logq": 0.0,
}
OURS = {"gru_variant": "reset_after", "grad_accumulation": 1, "seed": None}

# file: loss, layers, batch, drop embed, drop hidden, lr, momentum, alpha, bpreg, elu, logq
PARAMETER_FILES = {
    "coveo_bprmax_shared_best.py": ("bpr-max", 512, 144, 0.35, 0, 0.05, 0.4, 0.2, 1.85, 1, 0),
    "diginetica_bprmax_shared_best.py": ("bpr-max", 512, 128, 0.5, 0.3, 0.05, 0.15, 0.3, 0.9, 1, 0),
    "rees46_xe_shared_best.py": ("cross-entropy", 512, 240, 0.45, 0, 0.065, 0, 0.5, 0, 0, 1),
    "retailrocket_bprmax_shared_best.py": ("bpr-max", 224, 80, 0.5, 0.05, 0.05, 0.4, 0.4, 1.95, 0.5, 0),
    "rsc15_xe_shared_100_best.py": ("cross-entropy", 100, 32, 0, 0.4, 0.2, 0.2, 0.5, 0, 0, 1),
    "yoochoose_xe_shared_best.py": ("cross-entropy", 480, 48, 0, 0.2, 0.07, 0, 0.2, 0, 0, 1),
}

XE_SPACE = {
    "layers": ("int", [64, 512], 32),
    "batch_size": ("int", [32, 256], 16),
    "learning_rate": ("float", [0.01, 0.25], 0.005),
    "dropout_p_embed": ("float", [0, 0.5], 0.05),
    "dropout_p_hidden": ("float", [0, 0.7], 0.05),
    "momentum": ("float", [0, 0.9], 0.05),
    "sample_alpha": ("float", [0, 1], 0.1),
}
BPR_SPACE = XE_SPACE | {"bpreg": ("float", [0, 2], 0.05), "elu_param": ("categorical", [0.5, 1, 0], None)}


def parameters(folder: Path, text: str) -> Path:
    path = folder / "parameters.py"
    path.write_text(text, encoding="utf-8")
    return path


# --- values ---


def test_hyper_parameters_defaults_are_those_of_the_known_program() -> None:
    values = setting_values(HyperParameters())
    assert values == DEFAULTS | OURS
    assert {name: type(value) for name, value in values.items()} == {
        name: type(value) for name, value in (DEFAULTS | OURS).items()
    }
    assert setting_values(hyper_parameters({})) == values


def test_hyper_parameters_every_setting_can_be_changed() -> None:
    changed = {
        "layers": [3, 2],
        "loss": "bpr-max",
        "batch_size": 3,
        "dropout_p_embed": 0.125,
        "dropout_p_hidden": 0.25,
        "learning_rate": 0.5,
        "momentum": 0.75,
        "sample_alpha": 0.625,
        "n_sample": 17,
        "embedding": 5,
        "constrained_embedding": False,
        "n_epochs": 2,
        "bpreg": 0.0,
        "elu_param": 2.0,
        "logq": 1.0,
        "gru_variant": "reset_before",
        "grad_accumulation": 4,
        "seed": 0,
    }
    assert changed.keys() == HyperParameters.model_fields.keys()
    assert setting_values(hyper_parameters(changed)) == changed
    as_text = {name: "/".join(map(str, value)) if name == "layers" else str(value) for name, value in changed.items()}
    assert setting_values(hyper_parameters(as_text)) == changed


@pytest.mark.parametrize(
    ("value", "layers"),
    [("100", (100,)), ("200/100", (200, 100)), (100, (100,)), ([200, 100], (200, 100)), ((8,), (8,)), (["8"], (8,))],
)
def test_hyper_parameters_layers_take_every_form(value: Any, layers: tuple[int, ...]) -> None:
    assert hyper_parameters({"layers": value}).layers == layers


@pytest.mark.parametrize(
    ("value", "expected"),
    [("True", True), ("true", True), ("FALSE", False), ("False", False), (True, True), (False, False)],
)
def test_hyper_parameters_switch_takes_words_and_booleans(value: Any, *, expected: bool) -> None:
    assert hyper_parameters({"constrained_embedding": value}).constrained_embedding is expected


@pytest.mark.parametrize("value", ["1", "0", "yes", "", 1, 0, None, "maybe"])
def test_hyper_parameters_switch_takes_nothing_else(value: Any) -> None:
    with pytest.raises(ConfigError, match=r"constrained_embedding=.* give True or False"):
        hyper_parameters({"constrained_embedding": value})


@pytest.mark.parametrize(
    ("value", "seed"), [("none", None), ("None", None), (None, None), ("7", 7), (2**63 - 1, 2**63 - 1)]
)
def test_hyper_parameters_seed_may_be_none(value: Any, seed: int | None) -> None:
    settings = hyper_parameters({"seed": value})
    assert settings.seed == seed
    assert settings.draw_seed == (42 if seed is None else seed)


@pytest.mark.parametrize("name", [name for name, value in DEFAULTS.items() if isinstance(value, int | float | list)])
def test_hyper_parameters_true_is_no_number(name: str) -> None:
    if name == "constrained_embedding":
        return
    for value in (True, [True]):
        with pytest.raises(ConfigError, match=rf"{name}=\[?True\]? in the settings does not fit"):
            hyper_parameters({name: value, "constrained_embedding": False})


def test_hyper_parameters_all_findings_are_in_one_message_each_once() -> None:
    with pytest.raises(ConfigError) as caught:
        hyper_parameters({"layers": "a/b", "loss": "xe", "momentum": 1}, where="here")
    assert str(caught.value) == (
        "layers='a/b' in here does not fit: give whole numbers >= 1, such as 100 or 200/100; "
        "unknown loss 'xe' in here (loss=xe). Choose 'cross-entropy' or 'bpr-max'; "
        "momentum=1 in here does not fit: give a number, >= 0, < 1"
    )


def test_hyper_parameters_are_immutable() -> None:
    settings = HyperParameters()
    with pytest.raises(ValidationError, match="frozen"):
        settings.momentum = 0.5  # type: ignore[misc]


@pytest.mark.parametrize(
    ("values", "mode", "size"),
    [
        ({"layers": "8"}, "shared", 8),
        ({"layers": "8/4"}, "shared", 4),
        ({"layers": "8/4", "constrained_embedding": False}, "none", 8),
        ({"layers": "8/4", "constrained_embedding": False, "embedding": 3}, "separate", 3),
        ({"layers": "8/4", "constrained_embedding": False, "embedding": "6"}, "separate", 6),
        ({"layers": "8/4", "constrained_embedding": False, "embedding": "layersize"}, "separate", 8),
    ],
)
def test_hyper_parameters_input_mode_and_size_follow_from_the_embedding(
    values: dict[str, Any], mode: str, size: int
) -> None:
    settings = hyper_parameters(values)
    assert (settings.input_mode, settings.embedding_size) == (mode, size)


def test_setting_values_are_plain_and_make_the_same_settings() -> None:
    settings = hyper_parameters({"layers": "8/4", "constrained_embedding": False, "embedding": "layersize", "seed": 3})
    values = setting_values(settings)
    assert hyper_parameters(json.loads(json.dumps(values))) == settings


# --- parameter strings ---


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("layers=100", {"layers": "100"}),
        ("layers=200/100,loss=bpr-max", {"layers": "200/100", "loss": "bpr-max"}),
        (" layers = 100 , momentum= 0.1 ", {"layers": "100", "momentum": "0.1"}),
        ("logq=1,bpreg=2", {"logq": "1", "bpreg": "2"}),
        ("loss=a=b", {"loss": "a=b"}),  # the value is judged later
    ],
)
def test_parse_parameter_string_gives_names_and_texts_in_order(text: str, values: dict[str, str]) -> None:
    parsed = parse_parameter_string(text)
    assert parsed == values
    assert list(parsed) == list(values)


@pytest.mark.parametrize("text", ["", "layers", "layers=", "=100", "layers=100,", ",layers=100", "a=1,,b=2", "a:1"])
def test_parse_parameter_string_broken_part_raises(text: str) -> None:
    with pytest.raises(ConfigError, match=r"cannot read .* in -ps .*name=value"):
        parse_parameter_string(text)


# --- parameter files ---


@pytest.mark.parametrize("name", PARAMETER_FILES)
def test_parameter_file_has_the_published_values(name: str) -> None:
    loss, layers, batch, drop_embed, drop_hidden, rate, momentum, alpha, bpreg, elu, logq = PARAMETER_FILES[name]
    assert read_parameter_file(ROOT / "paramfiles" / name) == {
        "loss": loss,
        "layers": [layers],
        "batch_size": batch,
        "dropout_p_embed": drop_embed,
        "dropout_p_hidden": drop_hidden,
        "learning_rate": rate,
        "momentum": momentum,
        "sample_alpha": alpha,
        "bpreg": bpreg,
        "elu_param": elu,
        "logq": logq,
        "constrained_embedding": True,
        "embedding": 0,
        "n_sample": 2048,
        "n_epochs": 10,
    }
    hyper_parameters(read_parameter_file(ROOT / "paramfiles" / name))


def test_parameter_files_are_the_six_known_ones_and_ours() -> None:
    names = {path.name for path in (ROOT / "paramfiles").glob("*.py")}
    assert names == PARAMETER_FILES.keys() | {"rsc15_100k_bprmax_best.py"}


@pytest.mark.parametrize(
    "text",
    [
        "from collections import OrderedDict\ngru4rec_params = OrderedDict([('layers', [8, 4]), ('logq', -1.5)])\n",
        "import collections\ngru4rec_params = collections.OrderedDict([('layers', [8, 4]), ('logq', -1.5)])\n",
        "'''What it is.'''\n# why\n\ngru4rec_params = OrderedDict(((\"layers\", [8, 4]), ('logq', -1.5)),)\n",
        "gru4rec_params = OrderedDict(layers=[8, 4], logq=-1.5)",
        "gru4rec_params = OrderedDict([('layers', [8, 4])], logq=-1.5)",
        "gru4rec_params = OrderedDict({'layers': [8, 4], 'logq': -1.5})",
        "gru4rec_params = dict(layers=[8, 4], logq=-1.5)",
        "gru4rec_params = {'layers': [8, 4], 'logq': -1.5}",
        "\ufeffgru4rec_params = {'layers': [8, 4], 'logq': -1.5}",
    ],
)
def test_read_parameter_file_every_literal_form_gives_the_same_values(text: str, tmp_path: Path) -> None:
    assert read_parameter_file(parameters(tmp_path, text)) == {"layers": [8, 4], "logq": -1.5}


def test_read_parameter_file_executes_nothing(tmp_path: Path) -> None:
    witness = tmp_path / "executed"
    touch = f"__import__('pathlib').Path({str(witness)!r}).touch()"
    for text in (
        f"gru4rec_params = OrderedDict([('layers', [{touch}])])",
        f"{touch}\ngru4rec_params = {{}}",
        f"gru4rec_params = {{'layers': [8], **{touch}}}",
        f"gru4rec_params = OrderedDict(layers={touch})",
        f"from collections import OrderedDict as dict, {touch.split('.')[0]}\n",
        f"class X:\n    y = {touch}\n",
        f"@{touch}\ndef f(): ...\n",
        f"gru4rec_params: {touch} = {{}}",
        f'gru4rec_params = {{"loss": f"{{{touch}}}"}}',
    ):
        with pytest.raises(ConfigError):
            read_parameter_file(parameters(tmp_path, text))
    assert not witness.exists()


# --- space files ---


@pytest.mark.parametrize(
    ("name", "space"),
    [
        ("gru4rec_xe_standard_parspace.json", XE_SPACE),
        ("gru4rec_bprmax_standard_parspace.json", BPR_SPACE),
        ("rr_xe.json", XE_SPACE),
    ],
)
def test_space_file_has_the_known_dimensions_and_every_bound_is_a_setting(name: str, space: dict[str, Any]) -> None:
    lines = (ROOT / "paramspaces" / name).read_text(encoding="utf-8").splitlines()
    dimensions = [json.loads(line) for line in lines]
    assert {d["name"]: (d["dtype"], d["values"], d.get("step")) for d in dimensions} == space
    assert len(dimensions) == len(space)
    for dimension in dimensions:
        for value in dimension["values"]:
            settings = hyper_parameters({dimension["name"]: value})
            expected = [value] if dimension["name"] == "layers" else value
            assert setting_values(settings)[dimension["name"]] == expected


def test_space_files_are_the_three_known_ones() -> None:
    assert {path.name for path in (ROOT / "paramspaces").iterdir()} == {
        "gru4rec_xe_standard_parspace.json",
        "gru4rec_bprmax_standard_parspace.json",
        "rr_xe.json",
    }
