"""README's commands run as written, in order; docs/settings.md is what the declarations say."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from serve.running import served

from gru4rec.config import settings_table

ROOT = Path(__file__).parent.parent.parent
README = (ROOT / "README.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README, flags=re.MULTILINE | re.DOTALL)


def bash_lines() -> list[str]:
    return [line for block in blocks("bash") for line in block.replace("\\\n", " ").splitlines()]


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what a checkout has, to run README in."""
    folder = tmp_path_factory.mktemp("checkout")
    for name in ("run.py", "paropt.py", "evaluation.py", "gru4rec_pytorch.py"):
        shutil.copy(ROOT / name, folder)
    for name in ("paramfiles", "plans"):
        shutil.copytree(ROOT / name, folder / name)
    return folder


def run(command: list[str] | str, folder: Path) -> str:
    environment = {
        **os.environ,
        "PYTHONPATH": f"{folder}:{ROOT}",
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
    }
    done = subprocess.run(
        command,
        cwd=folder,
        env=environment,
        shell=isinstance(command, str),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.mark.timeout(600)
def test_every_command_and_the_python_example_run_as_written(checkout: Path) -> None:
    """All but `make` (the Makefile runs these tests), `activate` and the commands on logs that are not ours to ship."""
    ran = []
    with contextlib.ExitStack() as services:
        for line in bash_lines():
            command = line.split("  #")[0].strip()
            if not command or command.startswith(("#", "make ", ". .venv", "export ")) or "$GRU4REC_DATA" in command:
                continue
            ran.append(command)
            if command.startswith("gru4rec serve") and "--bench" not in command:
                service = services.enter_context(served(*command.split()[2:], log=checkout / "log", cwd=checkout))
            elif command.startswith("curl"):
                answer = json.loads(run(command.replace("localhost:8000", f"127.0.0.1:{service.port}"), checkout))
                assert len(answer["items"]) == 5
            else:
                run(command, checkout)
    assert len(ran) >= 9
    trials = json.loads((checkout / "paropt_train_tr" / "study.json").read_text())["trials"]
    assert len({trial["settings"]["learning_rate"] for trial in trials}) == 3
    live, whole = blocks("python")
    assert re.fullmatch(r"\[\d+(, \d+){4}\]\n", run([sys.executable, "-c", live], checkout))
    printed = run([sys.executable, "-c", whole], checkout)
    assert printed.count("Epoch") == 2
    assert len(re.findall(r"^\[\d+(, \d+){4}\]$", printed, flags=re.MULTILINE)) == 1


def test_readme_opens_with_five_lines_that_run() -> None:
    assert len(blocks("bash")[0].splitlines()) == 5
    assert README.index("```bash") < README.index("## Results")


def test_test_command_is_the_one_ci_runs() -> None:
    assert "make test" in [line.strip() for line in bash_lines()]
    assert (ROOT / ".ci" / "run").read_text().rstrip().endswith("exec make test")


def test_links_lead_somewhere() -> None:
    for document in [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").glob("*.md")]:
        for target in re.findall(r"\]\(([^)#:]+)\)", document.read_text()):
            assert (document.parent / target).exists(), f"{document.name} links to {target}"


def test_settings_page_holds_the_declared_table() -> None:
    page = (ROOT / "docs" / "settings.md").read_text()
    assert page.rstrip().endswith(settings_table()), (
        'write it anew: python -c "from gru4rec.config import settings_table; print(settings_table())"'
    )


def test_every_flag_in_the_docs_exists() -> None:
    from gru4rec.cli.main import _parser as command_parser
    from gru4rec.cli.run import _parser as run_parser

    parsers = [run_parser()]
    (commands,) = [action for action in command_parser()._actions if hasattr(action, "choices") and action.choices]
    parsers += list(commands.choices.values())  # type: ignore[union-attr]
    known = {flag for parser in parsers for action in parser._actions for flag in action.option_strings}
    for line in bash_lines():
        if line.startswith(("gru4rec ", "python run.py", "python paropt.py")):
            flags = re.findall(r"(?<= )(--?[a-zA-Z][\w-]*)", line.split("  #")[0])
            assert set(flags) <= known, line


def test_model_format_page_names_every_key_and_tensor() -> None:
    from gru4rec.config import hyper_parameters
    from gru4rec.model.network import GRU4RecModel

    page = (ROOT / "docs" / "model-format.md").read_text()
    names = set()
    for settings in (
        {},
        {"gru_variant": "reset_before"},
        {"constrained_embedding": False},
        {"constrained_embedding": False, "embedding": 3},
    ):
        names |= {re.sub(r"G\.\d", "G.i", name) for name in GRU4RecModel(3, hyper_parameters(settings)).state_dict()}
    keys = {
        "format",
        "format_version",
        "gru4rec_version",
        "settings",
        "n_items",
        "status",
        "n_epochs_done",
        "checksums",
        "header_checksum",
    }
    assert all(f"`{name}`" in page for name in names | keys)
