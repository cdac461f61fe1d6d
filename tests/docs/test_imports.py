"""Imports point left: a module imports from its own layer and those before it, at the top or inside functions."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent

LAYERS = [
    {"errors", "jit", "whole"},
    {"pages", "watch"},
    {"config"},
    {"data"},
    {"prepare"},
    {"model"},
    {"bundle"},
    {"convert"},
    {"train"},
    {"evaluate", "baselines"},
    {"serve"},
    {"scale"},
    {"export"},
    {"api"},
    {"runs"},
    {"update"},
    {"distributed"},
    {"reproduce"},
    {"tune"},
    {"compare"},
    {"doctor"},
    {"backtest"},
    {"cli"},
]
PLACE = {name: place for place, layer in enumerate(LAYERS) for name in layer}
MODULES = sorted((ROOT / "gru4rec").rglob("*.py"))


def layer_of(module: str) -> str | None:
    """Name of the layer of ``gru4rec.a.b``; None for the package itself, whose names load late."""
    parts = module.split(".")
    return parts[1] if len(parts) > 1 else None


def imported(path: Path) -> set[str]:
    """Dotted names under gru4rec that a file imports anywhere."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            assert node.level == 0, f"{path}: write imports from the root"
            names |= {node.module} if node.module != "gru4rec" else {f"gru4rec.{alias.name}" for alias in node.names}
    return {name for name in names if name.split(".")[0] == "gru4rec" and name != "gru4rec.__version__"}


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_module_imports_from_the_left_only(path: Path) -> None:
    own = path.relative_to(ROOT / "gru4rec").with_suffix("").parts[0]
    if own == "__init__":
        return
    for name in imported(path):
        layer = layer_of(name)
        assert layer in PLACE, f"{name}: a layer that LAYERS does not know"
        assert PLACE[layer] <= PLACE[own], f"{path} imports {name}"


def test_every_layer_exists() -> None:
    found = {path.relative_to(ROOT / "gru4rec").with_suffix("").parts[0] for path in MODULES} - {"__init__"}
    assert found == PLACE.keys()


def modules_after(code: str) -> set[str]:
    done = subprocess.run(
        [sys.executable, "-c", f"{code}\nimport sys; print(*sys.modules)"],
        capture_output=True, text=True, check=True, cwd=ROOT,
    )  # fmt: skip
    return {name.split(".")[0] for name in done.stdout.split()} | set(done.stdout.split())


@pytest.mark.parametrize(
    "code",
    [
        "import gru4rec",
        "from gru4rec.cli.main import _parser; _parser().format_help()",
        "from gru4rec.cli.run import _parser; _parser().format_help()",
    ],
)
def test_import_and_help_do_not_load_torch(code: str) -> None:
    assert not modules_after(code) & {"torch", "pandas", "polars", "pyarrow", "rich"}


def test_serving_needs_no_trainer_pandas_or_polars() -> None:
    loaded = modules_after("import gru4rec.serve.recommender")
    assert not loaded & {"pandas", "polars", "gru4rec.train", "gru4rec.cli"}


def test_public_names_are_what_they_say_even_after_their_packages_are_imported() -> None:
    import gru4rec
    import gru4rec.evaluate.evaluator

    assert all(callable(getattr(gru4rec, name)) for name in gru4rec.__all__ if name != "__version__")
