"""Finished parts: taken again only where all that decides them is the same and their file is whole."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from compare.shop_plan import numbers, write_plan, write_shop

from gru4rec.baselines.files import Fitted, save
from gru4rec.baselines.kinds import baseline_settings, fit_baseline
from gru4rec.compare.job import Outcome, compare
from gru4rec.compare.plan import read_plan
from gru4rec.data.session_map import load_sessions

MODELS = """
[[models]]
kind = "markov"
[[models]]
kind = "vsknn"
tune = false
[[models]]
kind = "gru4rec"
name = "GRU4Rec"
tune = false
settings = { layers = [8], batch_size = 64, n_epochs = 1, learning_rate = 0.2, n_sample = 64 }
[[models]]
kind = "hybrid"
model = "GRU4Rec"
neighbours = "V-SkNN"
[[models]]
kind = "hybrid"
name = "hybrid of fixed settings"
model = "GRU4Rec"
neighbours = "V-SkNN"
settings = { neighbour_share = 0.4 }
"""
DATA = 'train_tr = "train_tr.tsv"\ntrain_valid = "train_valid.tsv"'
TUNED = "trials = 2\nmetric = 'recall@20'"


def write_logs(folder: Path) -> None:
    """Write the shop, and its training log once more in two parts."""
    write_shop(folder)
    head, *rows = (folder / "train.tsv").read_text().splitlines()
    sessions = list(dict.fromkeys(session_of(row) for row in rows))
    late = set(sessions[-len(sessions) // 10 :])
    for name, wanted in (("train_tr", False), ("train_valid", True)):
        part = [row for row in rows if (session_of(row) in late) == wanted]
        (folder / f"{name}.tsv").write_text("\n".join([head, *part]) + "\n")


def session_of(row: str) -> str:
    return row.partition("\t")[0]


def write_whole_plan(folder: Path) -> Path:
    return write_plan(folder, MODELS, data=DATA, tuning=TUNED)


def run(folder: Path, out: Path) -> Outcome:
    return compare(read_plan(folder / "plan.toml"), out)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Outcome]:
    folder = tmp_path_factory.mktemp("base")
    write_logs(folder)
    write_whole_plan(folder)
    return folder, run(folder, folder / "out")


def without_last_session(name: str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        lines = (folder / name).read_text().splitlines()
        kept = [line for line in lines if session_of(line) != session_of(lines[-1])]
        (folder / name).write_text("\n".join(kept) + "\n")

    return change


def replaced(old: str, new: str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        text = (folder / "plan.toml").read_text()
        assert old in text
        (folder / "plan.toml").write_text(text.replace(old, new, 1))

    return change


INGREDIENTS = {
    "contents of the test log": without_last_session("test.tsv"),
    "contents of the training log": without_last_session("train.tsv"),
    "contents of train_tr": without_last_session("train_tr.tsv"),
    "contents of the validation log": without_last_session("train_valid.tsv"),
    "metric of tuning": replaced("metric = 'recall@20'", "metric = 'mrr@5'"),
    "ties": replaced("examples = 3", "examples = 3\nties = 'standard'"),
    "seed of ties": replaced("examples = 3", "examples = 3\nties = 'tiebreaking'\nseed = 5"),
    "list length of the blend": replaced("examples = 3", "examples = 3\nprimary = 'recall@5'"),
    "length of the lists": replaced("k = [5, 20]", "k = [5, 20, 30]"),
    "settings of the neighbours": replaced('kind = "vsknn"', 'kind = "vsknn"\nsettings = { k = 3 }'),
    "settings of the model": replaced("n_epochs = 1", "n_epochs = 2"),
    "seed of the model": replaced('name = "GRU4Rec"', 'name = "GRU4Rec"\nseeds = [7]'),
}


USUAL = {"contents of the test log", "contents of train_tr", "metric of tuning", "ties", "length of the lists",
         "settings of the model"}  # fmt: skip


@pytest.mark.parametrize(
    "ingredient",
    [name if name in USUAL else pytest.param(name, marks=pytest.mark.slow) for name in INGREDIENTS],
)
def test_changed_ingredient_gives_what_a_fresh_folder_gives(
    base: tuple[Path, Outcome], tmp_path: Path, ingredient: str
) -> None:
    folder, before = base
    for name in ("train", "test", "train_tr", "train_valid"):
        shutil.copy(folder / f"{name}.tsv", tmp_path)
    write_whole_plan(tmp_path)
    INGREDIENTS[ingredient](tmp_path)
    shutil.copytree(folder / "out", tmp_path / "used")
    changed, fresh = run(tmp_path, tmp_path / "used"), run(tmp_path, tmp_path / "fresh")
    assert numbers(changed.results) == numbers(fresh.results)
    assert changed.n_parts_made > 0
    assert numbers(changed.results)["models"] != numbers(before.results)["models"]


def test_changed_file_of_a_saved_model_gives_what_a_fresh_folder_gives(tmp_path: Path) -> None:
    write_shop(tmp_path)
    train = load_sessions(tmp_path / "train.tsv")
    write_plan(tmp_path, '[[models]]\nkind = "saved"\npath = "it.gru4rec"\n')
    found = []
    for steps in (1, 5):
        settings = baseline_settings("markov", {"steps": steps})
        fitted = Fitted("markov", fit_baseline("markov", train, settings), train.items, train.support(), settings)
        save(fitted, tmp_path / "it.gru4rec")
        found.append(numbers(run(tmp_path, tmp_path / "used").results))
    assert found[1] == numbers(run(tmp_path, tmp_path / "fresh").results)
    assert found[0] != found[1]


def cut_in_half(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def empty(path: Path) -> None:
    path.write_bytes(b"")


def something_else(path: Path) -> None:
    path.write_text("[1, 2]")


KINDS_OF_PARTS = ["ranks-*.npz", "fitting-*.json", "fit-*.gru4rec", "trial-*.json", "blend-*.json"]


@pytest.mark.parametrize(
    ("name", "damage"),
    [*((name, cut_in_half) for name in KINDS_OF_PARTS), ("ranks-*.npz", empty), ("trial-*.json", something_else)],
)
def test_damaged_part_is_made_again(
    base: tuple[Path, Outcome], tmp_path: Path, name: str, damage: Callable[[Path], None]
) -> None:
    folder, before = base
    shutil.copytree(folder / "out", tmp_path / "out")
    parts = sorted((tmp_path / "out" / "parts").glob(name))
    assert parts
    for path in parts:
        damage(path)
    mended = run(folder, tmp_path / "out")
    assert numbers(mended.results) == numbers(before.results)
    assert mended.n_parts_made > 0
    assert run(folder, tmp_path / "out").n_parts_made == 0
