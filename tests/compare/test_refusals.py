"""What only the logs show to be wrong: refused before anything is trained, and nothing is left behind."""

from __future__ import annotations

from pathlib import Path

import pytest
from compare.shop_plan import MODELS, write_plan, write_shop
from conftest import make_sessions

from gru4rec.baselines.files import Fitted, save
from gru4rec.baselines.kinds import baseline_settings, fit_baseline
from gru4rec.cli import main as door
from gru4rec.compare import job

POP = '[[models]]\nkind = "pop"\n'
HEADER = "SessionId\tItemId\tTime\n"


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("shop")
    write_shop(folder)
    return folder


def refused(plan: Path, out: Path, capsys: pytest.CaptureFixture[str]) -> str:
    assert door.main(["compare", str(plan), "-o", str(out), "-d", "cpu"]) == 2
    assert not out.exists()
    return capsys.readouterr().err


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ('item_key = "Item"', "no column 'Item' in "),
        ('session_key = "ItemId"', "session, item and time must be three columns"),
        ('folder = "."', "data.folder beside single logs"),
    ],
)
def test_wrong_column_is_named_as_the_plan_names_it(
    shop: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], data: str, message: str
) -> None:
    plan = write_plan(shop, POP, data=data)
    said = refused(plan, tmp_path / "deep" / "out", capsys)
    assert message in said
    assert "--" not in said
    assert not (tmp_path / "deep").exists()
    if "item_key" in data:
        assert f"Set data.item_key in plan {plan}, or rename the column" in said


@pytest.mark.parametrize(
    ("rows", "message"),
    [(None, "there is no file"), ("", "test.tsv"), ("1\tnever seen\t9\n1\tnor this\t10\n", "test.tsv")],
    ids=["missing", "empty", "unknown items only"],
)
def test_bad_log_leaves_nothing_behind(
    shop: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], rows: str | None, message: str
) -> None:
    (tmp_path / "train.tsv").write_bytes((shop / "train.tsv").read_bytes())
    if rows is not None:
        (tmp_path / "test.tsv").write_text(HEADER + rows)
    assert message in refused(write_plan(tmp_path, POP), tmp_path / "out", capsys)


def test_more_candidates_than_items_are_refused_before_anything_is_fitted(
    shop: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(job, "fit", lambda *given, **options: pytest.fail("fitting has begun"))
    said = refused(write_plan(shop, MODELS, evaluation="candidates = 600"), tmp_path / "out", capsys)
    assert "candidates = 600 are too many" in said
    assert "or leave candidates out" in said


def a_file_that_is_missing(path: Path) -> str:
    return f"there is no file {path}. Check the path"


def no_model_file(path: Path) -> str:
    path.write_text("weeks of training")
    return f"{path} is not a model file"


def model_of_other_items(path: Path) -> str:
    other, settings = make_sessions([[0, 1], [1, 2]], 3), baseline_settings("pop", {})
    save(Fitted("pop", fit_baseline("pop", other, settings), other.items, other.support(), settings), path)
    return f"{path} knows 3 items, and "


@pytest.mark.parametrize("make", [a_file_that_is_missing, no_model_file, model_of_other_items])
def test_saved_model_that_cannot_be_measured_is_refused_before_anything_is_fitted(
    shop: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, make: object
) -> None:
    assert callable(make)
    monkeypatch.setattr(job, "fit", lambda *given, **options: pytest.fail("fitting has begun"))
    message = make(tmp_path / "it.gru4rec")
    saved = f'[[models]]\nkind = "saved"\nname = "mine"\npath = "{tmp_path}/it.gru4rec"\n'
    said = refused(write_plan(shop, MODELS + saved, tuning="trials = 2"), tmp_path / "out", capsys)
    assert "path of model 'mine': " in said
    assert message in said
    assert "-s" not in said.replace(str(tmp_path), "").replace(str(shop), "")
