"""docs/export.md: its commands and programs run as written, and it names what is in the files."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from dataclasses import fields
from pathlib import Path
from typing import Any

import doors
import pytest
from conftest import ROOT
from export.small_models import INTEGER_IDS, TEXT_IDS, save_model

from gru4rec.cli.main import main
from gru4rec.export.about import ABOUT, ITEM_IDS, VERIFIED, About
from gru4rec.serve.recommender import Recommender

PAGE = (ROOT / "docs" / "export.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", PAGE, flags=re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("ids", [INTEGER_IDS, TEXT_IDS], ids=["integers", "text"])
def test_commands_and_programs_run_as_written(ids: list[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = save_model(tmp_path / "shop.gru4rec", ids=ids, layers=[7, 8])
    monkeypatch.chdir(tmp_path)
    commands = [shlex.split(line) for line in blocks("bash")[0].splitlines() if line.startswith("gru4rec ")]
    assert [doors.call(main, command[1:])[0] for command in commands] == [0, 0, 0]
    recommender = Recommender.load(model)
    lists = [recommender.recommend(ids[: n_clicks + 1], 5).item_ids for n_clicks in range(3)]
    expected = [f"{item_id} -> {found}" for item_id, found in zip(ids[:3], lists, strict=True)]
    with_onnx, with_torch = blocks("python")
    assert printed(with_onnx, tmp_path) == "\n".join([*expected, f"an item nobody knows -> {lists[-1]}\n"])
    assert printed(with_torch, tmp_path) == "\n".join(expected) + "\n"


def printed(program: str, folder: Path) -> str:
    """Run a program where nothing of gru4rec may be imported."""
    guard = "import sys; sys.modules['gru4rec'] = None\n"
    environment = {**os.environ, "PYTHONIOENCODING": "utf-8"}
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", guard + program],
        cwd=folder, env=environment, capture_output=True, encoding="utf-8", check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_onnx_program_is_short() -> None:
    lines = [line for line in blocks("python")[0].splitlines() if line]
    assert len(lines) <= 16


def test_page_names_every_text_and_key() -> None:
    names = {ABOUT, ITEM_IDS, VERIFIED, "format", "format_version", *(field.name for field in fields(About))}
    assert all(f"`{name}`" in PAGE for name in names)
