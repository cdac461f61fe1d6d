"""Wrong input to ``gru4rec reproduce``: one message before any work, status 2, nothing half written."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from prepare import raw_logs

from gru4rec.api import GRU4Rec
from gru4rec.cli.main import main
from gru4rec.reproduce import job

Break = Callable[[Path, Path], None]


@pytest.fixture(autouse=True)
def _nothing_is_trained(monkeypatch: pytest.MonkeyPatch) -> None:
    def fit(self: GRU4Rec, *given: object, **options: object) -> GRU4Rec:
        raise AssertionError("training has begun")

    monkeypatch.setattr(GRU4Rec, "fit", fit)


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    (folder := tmp_path / "raw").mkdir()
    raw_logs.WRITERS["diginetica"](folder, 1)
    return folder


def contents(folder: Path) -> dict[str, bytes | None]:
    return {str(path): path.read_bytes() if path.is_file() else None for path in sorted(folder.rglob("*"))}


def refused(capsys: pytest.CaptureFixture[str], within: Path, *argv: str) -> str:
    """Run the command, make sure that it is refused and leaves all as it was, and return the message."""
    before = contents(within)
    assert main(["reproduce", *argv]) == 2
    assert contents(within) == before
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.count("Error: ") == 1
    return said.err


FLAGS = [
    (["-d", "cuda:99"], "device 'cuda:99' is not on this machine"),
    (["--seeds", "1", "2", "1"], "seed 1 stands twice in --seeds. Give each once"),
    (["--seeds", "-1"], "seed=-1 in diginetica_bprmax_shared_best.py does not fit"),
    (["--n_epochs", "0"], "n_epochs=0 in diginetica_bprmax_shared_best.py does not fit"),
    (["--engine", "plain", "--precision", "bf16", "-d", "cpu"], "precision"),
]


@pytest.mark.parametrize(("flags", "message"), FLAGS, ids=[" ".join(flags) for flags, _ in FLAGS])
def test_wrong_flag_is_refused_before_preparing(
    flags: list[str], message: str, raw: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    said = refused(capsys, tmp_path, "diginetica", str(raw), "-o", str(tmp_path / "out"), *flags)
    assert message in said
    assert said.count("\n") == 1


def test_unknown_data_set_is_refused_with_the_nearest(
    raw: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    said = refused(capsys, tmp_path, "diginetca", str(raw), "-o", str(tmp_path / "out"))
    assert "unknown data set 'diginetca'. Choose one of " in said
    assert "did you mean 'diginetica'?" in said


def test_missing_raw_files_are_named(raw: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = str(tmp_path / "new" / "out")
    assert "there is no 2019-Oct.csv in " in refused(capsys, tmp_path, "rees46", str(raw), "-o", out)
    assert "there is no folder " in refused(capsys, tmp_path, "coveo", str(tmp_path / "none"), "-o", out)


def test_wrong_raw_row_leaves_no_folder(raw: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = raw / "train-item-views.csv"
    path.write_text(path.read_text().replace("2016-05-2", "2016-25-2", 1))
    said = refused(capsys, tmp_path, "diginetica", str(raw), "-o", str(tmp_path / "new" / "out"))
    assert "2016-25-2" in said
    assert not (tmp_path / "new").exists()


def test_log_too_small_for_the_lists_is_refused_before_training(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (raw := tmp_path / "raw").mkdir()
    rows = [
        f"{day * 9 + user};NA;{item};{item * 1000};2016-05-{day:02}"
        for day in range(1, 29)
        for user in range(9)
        for item in range(3)
    ]
    (raw / "train-item-views.csv").write_text("\n".join(["sessionId;userId;itemId;timeframe;eventdate", *rows]) + "\n")
    assert main(["reproduce", "diginetica", str(raw), "-o", str(tmp_path / "out")]) == 2
    assert (
        "train_full.parquet has 3 items, too few for lists of 20. Is the raw log complete?" in capsys.readouterr().err
    )


# --- the output folder ---


def test_folder_that_cannot_be_written_is_refused_before_preparing(
    raw: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(job, "prepare", lambda *given, **options: pytest.fail("preparing has begun"))
    said = refused(capsys, tmp_path, "diginetica", str(raw), "-o", str(raw / "train-item-views.csv" / "out"))
    assert "cannot write to " in said
    assert "Give -o a folder that can be written to" in said


def a_file_for_the_logs(out: Path) -> None:
    (out / "prepared").write_text("mine")


def a_thesis_among_the_logs(out: Path) -> None:
    (out / "prepared").mkdir()
    (out / "prepared" / "thesis.txt").write_text("years of work")


def logs_of_another_set(out: Path) -> None:
    (out / "prepared").mkdir()
    (out / "prepared" / "stats.json").write_text('{"recipe": "coveo"}')


def logs_of_no_recipe(out: Path) -> None:
    (out / "prepared").mkdir()
    (out / "prepared" / "stats.json").write_text('{"recipe": null}')


def a_model_of_someone(out: Path) -> None:
    (out / "model.gru4rec").write_text("weeks of training")


def a_model_of_another_set(out: Path) -> None:
    (out / "model.gru4rec").write_text("weeks of training")
    (out / "model.json").write_text('{"dataset": "coveo"}')


def a_model_whose_record_is_silent(out: Path) -> None:
    (out / "model.gru4rec").write_text("weeks of training")
    (out / "model.json").write_text('{"dataset": "diginetica"}')


def a_model_trained_longer(out: Path) -> None:
    (out / "model.gru4rec").write_text("weeks of training")
    (out / "model.json").write_text('{"dataset": "diginetica", "settings": {"n_epochs": 12}}')


def a_folder_for_the_model(out: Path) -> None:
    (out / "model.gru4rec").mkdir()


def a_folder_for_the_report(out: Path) -> None:
    (out / "reproduce.json").mkdir()


FOLDERS = [
    (a_file_for_the_logs, "prepared is in the way: the prepared logs are to be a folder. Give -o another folder"),
    (a_thesis_among_the_logs, "prepared holds thesis.txt, which reproduce did not write. Give -o another folder"),
    (logs_of_another_set, "prepared holds coveo, and not diginetica. Give -o another folder"),
    (logs_of_no_recipe, "prepared holds another log, and not diginetica. Give -o another folder"),
    (a_model_of_someone, "model.gru4rec has no model.json to say what it is. Give -o another folder"),
    (a_model_of_another_set, "model.gru4rec is a model of coveo. Give -o another folder"),
    (
        a_model_whose_record_is_silent,
        "model.json does not say for how many epochs model.gru4rec was trained. Give -o another folder",
    ),
    (a_model_trained_longer, "was trained for 12 epochs, and --n_epochs 10 would replace it. Give -o another folder"),
    (a_folder_for_the_model, "model.gru4rec: it is a folder"),
    (a_folder_for_the_report, "reproduce.json: it is a folder"),
]


@pytest.mark.parametrize(("make", "message"), FOLDERS, ids=[make.__name__ for make, _ in FOLDERS])
def test_folder_with_something_else_in_it_is_refused_and_stays(
    make: Callable[[Path], None], message: str, raw: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (out := tmp_path / "out").mkdir()
    make(out)
    said = refused(capsys, tmp_path, "diginetica", str(raw), "-o", str(out))
    assert message in said
    assert said.count("\n") == 1
