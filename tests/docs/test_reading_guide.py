"""The reading guides name what exists, in both languages alike."""

from __future__ import annotations

import importlib
import re
from pathlib import Path
from typing import Any

import pytest

from gru4rec.config import HyperParameters

ROOT = Path(__file__).parent.parent.parent
GUIDES = {
    name: (ROOT / "docs" / f"{name}.md").read_text(encoding="utf-8") for name in ("reading-guide", "reading-guide.zh")
}
each_guide = pytest.mark.parametrize("name", GUIDES)

FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", flags=re.DOTALL | re.MULTILINE)


def prose(text: str) -> str:
    """The text without its fenced blocks."""
    return FENCE.sub("", text)


def code_names(text: str) -> set[str]:
    """What stands between backticks outside fenced blocks."""
    return set(re.findall(r"`([^`\n]+)`", prose(text)))


def dotted_names(text: str) -> set[str]:
    """Dotted names under gru4rec, fenced blocks included."""
    return set(re.findall(r"(?<![\w./-])gru4rec(?:\.\w+)+", text))


def blocks(text: str) -> list[tuple[str, str]]:
    """Language and content of the fenced blocks that are commands."""
    return [(language, content) for language, content in FENCE.findall(text) if language]


def breakpoints(text: str) -> set[str]:
    """What the pdb sessions and the table of section 2.10 stop at."""
    typed = {name for _, content in blocks(text) for name in re.findall(r"\b(?:b|tbreak) (gru4rec[\w.]+)", content)}
    return typed | set(re.findall(r"^\|[^|]*\| `(gru4rec\.[\w.]+)` \| `", prose(text), flags=re.MULTILINE))


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


def table(text: str, heading: str) -> list[list[str]]:
    """Cells of the rows of the first table under a numbered heading, without its head."""
    section = re.split(r"^#+ ", text.split(f"\n### {heading} ")[1], flags=re.MULTILINE)[0]
    rows = [line for line in section.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in row.strip("|").split("|")] for row in rows[2:]]


@each_guide
def test_guide_file_paths_all_exist(name: str) -> None:
    paths = set(re.findall(r"`((?:gru4rec/)?[\w/]+\.py)`", GUIDES[name]))
    assert len(paths) >= 18
    assert [path for path in sorted(paths) if not (ROOT / path).is_file()] == []


@each_guide
def test_guide_dotted_names_all_resolve(name: str) -> None:
    found = dotted_names(GUIDES[name])
    assert len(found) >= 30
    for dotted in sorted(found):
        resolve(dotted)


@each_guide
def test_guide_breakpoints_stop_in_functions_of_this_package(name: str) -> None:
    """A decorated function would make pdb stop in the decorator's file."""
    found = breakpoints(GUIDES[name])
    assert len(found) >= 18
    for dotted in sorted(found):
        function = resolve(dotted)
        code = getattr(function, "__func__", function).__code__
        assert Path(code.co_filename).is_relative_to(ROOT / "gru4rec"), dotted


@each_guide
def test_guide_settings_reference_has_every_hyper_parameter_once(name: str) -> None:
    rows = table(GUIDES[name], "3.2")
    assert sorted(row[0].strip("`") for row in rows) == sorted(HyperParameters.model_fields)


@each_guide
def test_guide_links_to_files_lead_somewhere(name: str) -> None:
    targets = re.findall(r"\]\((?!https?:)([^)#]+)\)", GUIDES[name])
    assert len(targets) >= 3
    assert [target for target in targets if not (ROOT / "docs" / target).is_file()] == []


def test_guides_code_names_in_both_languages_are_the_same() -> None:
    english, chinese = (code_names(text) for text in GUIDES.values())
    assert english == chinese


def test_guides_commands_in_both_languages_are_the_same() -> None:
    english, chinese = (blocks(text) for text in GUIDES.values())
    assert len(english) >= 10
    assert english == chinese


def test_guides_headings_in_both_languages_have_the_same_levels_and_numbers() -> None:
    english, chinese = (re.findall(r"^(#+) ([\d.]*)", prose(text), flags=re.MULTILINE) for text in GUIDES.values())
    assert len(english) >= 18
    assert english == chinese


def test_guides_measured_figures_in_both_languages_are_the_same() -> None:
    english, chinese = ([row[1:3] for row in table(text, "3.3")] for text in GUIDES.values())
    assert 8 <= len(english) <= 12
    assert english == chinese
