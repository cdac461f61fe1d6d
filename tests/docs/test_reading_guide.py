"""The reading guides name what exists, in both languages alike."""

from __future__ import annotations

import importlib
import re
from pathlib import Path
from typing import Any

import pytest

from gru4rec.config import HyperParameters

ROOT = Path(__file__).parent.parent.parent
GUIDES = {name: (ROOT / "docs" / f"{name}.md").read_text() for name in ("reading-guide", "reading-guide.zh")}
each_guide = pytest.mark.parametrize("name", GUIDES)


def code_names(text: str) -> set[str]:
    return set(re.findall(r"`([^`\n]+)`", re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE)))


def resolve(dotted: str) -> Any:
    """Import the longest module of a dotted name and walk the rest."""
    parts = dotted.split(".")
    for n_module in range(len(parts), 0, -1):
        try:
            found: Any = importlib.import_module(".".join(parts[:n_module]))
        except ModuleNotFoundError:
            continue
        for part in parts[n_module:]:
            found = getattr(found, part)
        return found
    raise ModuleNotFoundError(dotted)


@each_guide
def test_guide_paths_exist(name: str) -> None:
    paths = {path for code in code_names(GUIDES[name]) for path in re.findall(r"[\w/]+\.py", code)}
    assert len(paths) >= 15
    assert [path for path in sorted(paths) if not (ROOT / path).exists()] == []


@each_guide
def test_guide_breakpoints_name_functions_and_classes_that_exist(name: str) -> None:
    dotted = {found for code in code_names(GUIDES[name]) for found in re.findall(r"^gru4rec(?:\.\w+)+", code)}
    assert len(dotted) >= 12
    for found in dotted:
        resolve(found)


@each_guide
def test_guide_classes_and_functions_exist(name: str) -> None:
    homes = [
        "api.GRU4Rec",
        "config.HyperParameters",
        "data.batches",
        "data.negatives",
        "model.network",
        "model.initial",
    ]
    homes += ["model.network.GRU4RecModel", "train.loop", "train.step", "train.optim", "model.scorer"]
    for word in ("SampleStore", "SessionDataIterator", "PlainStep", "IndexedAdagradM", "GRU4RecModel", "initialise"):
        assert f"`{word}`" in GUIDES[name]
        assert any(hasattr(resolve(f"gru4rec.{home}"), word) for home in homes)


@each_guide
def test_guide_settings_are_all_there(name: str) -> None:
    (table,) = re.findall(r"^\| (?:setting|超参数) \|.*?\n\n", GUIDES[name], flags=re.DOTALL | re.MULTILINE)
    first_cells = "".join(line.split("|")[1] for line in table.splitlines()[2:] if line)
    assert set(re.findall(r"`(\w+)`", first_cells)) == HyperParameters.model_fields.keys()


def test_both_guides_name_the_same_code() -> None:
    english, chinese = (code_names(text) for text in GUIDES.values())
    assert english == chinese


def test_both_guides_have_the_same_headings_and_tables() -> None:
    levels = [re.findall(r"^(#+) (?:\d)?", text, flags=re.MULTILINE) for text in GUIDES.values()]
    assert levels[0] == levels[1]
    tables = [[line.count("|") for line in text.splitlines() if line.startswith("|")] for text in GUIDES.values()]
    assert tables[0] == tables[1]
