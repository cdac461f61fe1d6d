"""A search from end to end: the known command, what it leaves, failures, going on, and what is refused."""

from __future__ import annotations

import re
import signal
import sqlite3
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import optuna
import pytest
from tune.programs import LONG, Programs
from tune.small_shop import by_place, call, study_of, words

from gru4rec.cli import run as run_door
from gru4rec.config import read_parameter_file


def test_known_command_finds_settings_whose_metrics_run_py_repeats(
    shop: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    flags = "-g gru4rec_pytorch -m 5 -nt 4 -fm 1 5 20 -pm mrr -e conservative -d cpu -ik ItemId -sk SessionId -tk Time"
    known = [shop / "train.tsv", shop / "valid.tsv", "-opf", shop / "space.json", "-fp", "n_epochs=2,n_sample=16"]
    status, stdout, stderr = call([*known, *flags.split()])
    assert (status, "trial 4 of 4: " in stderr) == (0, True)
    assert "4 trials of MRR@5 in sqlite:///" in stderr
    assert "(0 done), 1 worker with up to " in stderr
    metrics = [line for line in stdout.splitlines() if line.startswith("Recall@")]
    folder = tmp_path / "paropt_train"
    again = [shop / "train.tsv", "-pf", folder / "best_params.py", "-t", shop / "valid.tsv", "-m", "1", "5", "20"]
    capfd.readouterr()
    assert run_door.main([str(word) for word in (*again, "-e", "conservative", "-d", "cpu", "-q")]) == 0
    assert [line for line in capfd.readouterr().out.splitlines() if line.startswith("Recall@")] == metrics
    loaded = [folder / "best.gru4rec", "-l", "-t", shop / "valid.tsv", "-m", "1", "5", "20", "-e", "conservative"]
    assert run_door.main([str(word) for word in (*loaded, "-d", "cpu", "-q")]) == 0
    assert capfd.readouterr().out.splitlines() == metrics
    study = study_of(folder)
    best = next(row for row in study["trials"] if row["number"] == study["best"])
    assert f"MRR@5: {best['value']:.6f}" in metrics[1]
    assert best["value"] == max(row["value"] for row in study["trials"] if row["state"] == "complete")
    assert best["settings"].keys() == read_parameter_file(folder / "best_params.py").keys()
    assert {path.name for path in folder.iterdir()} >= {"best_params.py", "best.gru4rec", "study.json", "report.html"}
    assert not list(folder.glob(".data-*"))


def test_page_opens_offline_and_has_all_figures(shop: Path, tmp_path: Path) -> None:
    assert call(words(shop, tmp_path / "run", "-nt", "5", "--sampler", "random", "-q"))[0] == 0
    text = (tmp_path / "run" / "report.html").read_text()
    assert not re.search(r"(src|href)=\"https?:", text)
    assert re.findall("<h2>(.*)</h2>", text)[:2] == ["Best settings", "Trained with them, at all list lengths"]
    for title in ("History", "Importances", "Slices", "Parallel coordinates", "All trials"):
        assert f"<h2>{title}</h2>" in text
    for svg in re.findall(r"<svg.*?</svg>", text, flags=re.DOTALL):
        ElementTree.fromstring(svg)


FAILING = """{"name": "learning_rate", "dtype": "categorical", "values": [0.1, 1e30]}
{"name": "layers", "dtype": "categorical", "values": [8, 2000000000]}
"""


def test_failing_trials_are_recorded_with_their_reason_and_the_best_is_found(shop: Path, tmp_path: Path) -> None:
    space = tmp_path / "space.json"
    space.write_text(FAILING)
    flags = ["-nt", "8", "--sampler", "random", "--seed", "1", "--no-report"]
    status, _, stderr = call(words(shop, tmp_path / "run", *flags, space=space))
    assert status == 0, stderr
    rows = study_of(tmp_path / "run")["trials"]
    assert len(rows) == 8
    for row in rows:
        too_large, too_fast = row["settings"]["layers"] == 2_000_000_000, row["settings"]["learning_rate"] == 1e30
        assert row["state"] == ("failed" if too_large or too_fast else "complete")
        if too_large:
            assert row["reason"].startswith("out of memory")
        elif too_fast:
            assert row["reason"].startswith("DivergedError: ")
    assert {row["state"] for row in rows} == {"failed", "complete"}
    assert len({(row["settings"]["layers"], row["settings"]["learning_rate"]) for row in rows}) >= 3


def test_search_without_any_result_says_the_first_reason(shop: Path, tmp_path: Path) -> None:
    space = tmp_path / "space.json"
    space.write_text('{"name": "learning_rate", "dtype": "categorical", "values": [1e30]}\n')
    status, _, stderr = call(words(shop, tmp_path / "run", "-nt", "2", "-q", space=space))
    assert status == 1
    assert "no trial of 2 came to a result; the first: DivergedError" in stderr
    assert [row["state"] for row in study_of(tmp_path / "run")["trials"]] == ["failed", "failed"]


def test_resume_adds_exactly_the_missing_trials_and_is_the_study_that_was_not_interrupted(
    shop: Path, tmp_path: Path
) -> None:
    flags = ["--sampler", "tpe", "--no-prune", "-q", "--no-report"]
    assert call(words(shop, tmp_path / "whole", "-nt", "4", "--study", "one", *flags))[0] == 0
    assert call(words(shop, tmp_path / "halves", "-nt", "2", "--study", "one", *flags))[0] == 0
    before = study_of(tmp_path / "halves")["trials"]
    status, _, stderr = call(words(shop, tmp_path / "halves", "-nt", "4", "--study", "one", "--resume", *flags))
    assert (status, stderr) == (0, "")
    rows = study_of(tmp_path / "halves")["trials"]
    assert rows[:2] == before
    assert by_place(tmp_path / "halves") == by_place(tmp_path / "whole")
    assert call(words(shop, tmp_path / "halves", "-nt", "4", "--study", "one", "--resume", *flags))[0] == 0
    assert study_of(tmp_path / "halves")["trials"] == rows


def test_study_is_not_begun_twice_and_nothing_is_overwritten(shop: Path, tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    assert call(words(shop, run_dir, "-nt", "1", "-q", "--no-report"))[0] == 0
    before = {path.name: path.read_bytes() for path in run_dir.iterdir()}
    status, _, stderr = call(words(shop, run_dir, "-nt", "1", "-q"))
    assert (status, "holds a study already (study.json). Go on with it: --resume" in stderr) == (2, True)
    storage = f"sqlite:///{run_dir / 'study.db'}"
    status, _, stderr = call(words(shop, tmp_path / "other", "-nt", "1", "-q", "--storage", storage, "--study", "run"))
    assert (status, "the study 'run' is in sqlite:///" in stderr) == (2, True)
    status, _, stderr = call(words(shop, run_dir, "-nt", "2", "-q", "--resume", fixed="n_epochs=2"))
    assert (status, "was begun with -fp" in stderr) == (2, True)
    assert {path.name: path.read_bytes() for path in run_dir.iterdir()} == before
    assert not (tmp_path / "other").exists()


def test_study_whose_making_was_interrupted_is_made_anew(shop: Path, tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    run_dir.mkdir()
    study = optuna.create_study(study_name="run", storage=f"sqlite:///{run_dir / 'study.db'}", direction="maximize")
    study.enqueue_trial({"learning_rate": 0.1})
    status, _, stderr = call(words(shop, run_dir, "-nt", "1", "-q", "--no-report", "--resume"))
    assert (status, "there is no study 'run'" in stderr) == (2, True)
    assert call(words(shop, run_dir, "-nt", "1", "-q", "--no-report"))[0] == 0
    assert [row["state"] for row in study_of(run_dir)["trials"]] == ["complete"]


def test_folder_of_a_training_run_and_other_pages_are_left_alone(shop: Path, tmp_path: Path) -> None:
    for name, message in (("config.json", "is the folder of a training run"), ("report.html", "holds a study already")):
        run_dir = tmp_path / name.partition(".")[0]
        run_dir.mkdir()
        (run_dir / name).write_text("theirs")
        status, _, stderr = call(words(shop, run_dir, "-nt", "1", "-q"))
        assert (status, message in stderr) == (2, True)
        assert [path.read_text() for path in run_dir.iterdir()] == ["theirs"]


def test_database_of_others_is_not_written_to_while_it_is_looked_at(shop: Path, tmp_path: Path) -> None:
    database = tmp_path / "foreign.db"
    with sqlite3.connect(database) as connection:
        connection.execute("CREATE TABLE mine (number INTEGER)")
    before = database.read_bytes()
    flags = ["-nt", "1", "-q", "--storage", f"sqlite:///{database}", "--resume"]
    status, _, stderr = call(words(shop, tmp_path / "run", *flags))
    assert (status, "there is no study" in stderr) == (2, True)
    assert database.read_bytes() == before


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--storage", "sqlite:///what?x.db"], "sqlite takes what follows a ? for options"),
        (["--storage", "journal:SPACE"], "cannot open the storage journal:"),
    ],
    ids=["question mark", "no journal"],
)
def test_storages_that_do_not_do_have_one_message(flags: list[str], message: str, shop: Path, tmp_path: Path) -> None:
    flags = [flag.replace("SPACE", str(shop / "space.json")) for flag in flags]
    status, _, stderr = call(words(shop, tmp_path / "run", "-nt", "1", "-q", "--no-report", *flags))
    assert (status, message in stderr) == (2, True), stderr


def test_starting_files_are_the_first_trials_and_candidates_decide(shop: Path, tmp_path: Path) -> None:
    start = tmp_path / "start.py"
    start.write_text("gru4rec_params = dict(layers=[8], learning_rate=0.2, n_epochs=1, n_sample=16, batch_size=16)\n")
    run_dir = tmp_path / "run"
    flags = ["-nt", "3", "--no-prune", "-q", "--no-report", "--start", start, "--candidate-seeds", "2"]
    assert call(words(shop, run_dir, *flags))[0] == 0
    study = study_of(run_dir)
    first = study["trials"][0]["settings"]
    assert (first["layers"], first["learning_rate"]) == (8, 0.2)
    assert len(study["candidates"]) == 3
    assert study["best"] == max(study["candidates"], key=lambda row: row["mean"])["number"]
    assert all(row["mean"] == pytest.approx(sum(row["values"]) / 2) for row in study["candidates"])


def test_journal_keeps_a_study_too(shop: Path, tmp_path: Path) -> None:
    storage = f"journal:{tmp_path / 'study.journal'}"
    flags = ["--storage", storage, "--workers", "2", "--no-report", "--sampler", "random", "--pruner", "median"]
    status, _, stderr = call(words(shop, tmp_path / "run", "-nt", "4", *flags))
    assert (status, "a journal has no heartbeat" in stderr) == (0, True)
    assert sorted(by_place(tmp_path / "run")) == [0, 1, 2, 3]


@pytest.mark.parametrize("sampler", ["gp", "cmaes"])
def test_samplers_search(sampler: str, shop: Path, tmp_path: Path) -> None:
    pytest.importorskip({"gp": "scipy", "cmaes": "cmaes"}[sampler])
    flags = ["-nt", "11", "--sampler", sampler, "--pruner", "none", "-q", "--no-report"]
    assert call(words(shop, tmp_path / "run", *flags))[0] == 0
    assert len(study_of(tmp_path / "run")["trials"]) == 11


# --- processes that end ---


def test_killed_workers_lose_and_double_nothing(programs: Programs, shop: Path, tmp_path: Path) -> None:
    flags = ["-nt", "4", "--sampler", "random", "--no-prune", "--no-report"]
    assert call(words(shop, tmp_path / "calm", *flags, "-q", fixed=LONG))[0] == 0
    run_dir = tmp_path / "killed"
    program = programs.start(shop, run_dir, *flags, "--workers", "2", fixed=LONG)
    for _ in range(2):
        programs.kill_worker(f"sqlite:///{run_dir / 'study.db'}")
    _, stderr = program.communicate(timeout=100)
    assert program.returncode == 0, stderr
    assert stderr.count("ended with status -9") == 2
    rows = study_of(run_dir)["trials"]
    assert sum(row["state"] == "lost" for row in rows) >= 1
    assert len([row for row in rows if row["state"] != "lost"]) == 4
    assert by_place(run_dir) == by_place(tmp_path / "calm")
    assert (run_dir / "best_params.py").read_text() == (tmp_path / "calm" / "best_params.py").read_text()


@pytest.mark.parametrize("stop", [pytest.param(signal.SIGINT, marks=pytest.mark.slow), signal.SIGKILL])
def test_program_that_is_stopped_goes_on_with_resume(
    stop: signal.Signals, programs: Programs, shop: Path, tmp_path: Path
) -> None:
    run_dir = tmp_path / "run"
    flags = ["-nt", "2", "--sampler", "random", "--no-prune", "--no-report"]
    program = programs.start(shop, run_dir, *flags, fixed=LONG)
    programs.wait_for_worker(f"sqlite:///{run_dir / 'study.db'}")
    program.send_signal(stop)
    _, stderr = program.communicate(timeout=60)
    if stop == signal.SIGINT:
        assert program.returncode == 130
        assert "go on with --resume" in stderr
        assert "interrupted" not in stderr
        assert not list(run_dir.glob(".data-*"))
        assert "running" not in {row["state"] for row in study_of(run_dir)["trials"]}
    status, _, stderr = call(words(shop, run_dir, *flags, "--resume", fixed=LONG))
    assert status == 0, stderr
    rows = study_of(run_dir)["trials"]
    assert [row["state"] for row in rows].count("complete") == 2
    assert sorted(by_place(run_dir)) == [0, 1]
    assert not list(run_dir.glob(".data-*"))


def test_table_shows_the_best_and_those_that_run() -> None:
    import io

    import optuna
    from rich.console import Console

    from gru4rec.tune.live import table_of

    study = optuna.create_study(direction="maximize")
    for place, value in enumerate((0.25, 0.5, None)):
        study.enqueue_trial({}, user_attrs={"place": place})
        trial = study.ask()
        trial.set_user_attr("settings", {"layers": 8 + place})
        if value is not None:
            study.tell(trial, value)
    trial.report(0.125, 1)
    console = Console(file=io.StringIO(), width=100)
    console.print(table_of(study.get_trials(), 5, "MRR@20"))
    shown = console.file.getvalue()  # type: ignore[attr-defined]
    assert "5 trials: 2 complete, 1 running" in shown
    assert shown.index("0.500000") < shown.index("0.250000") < shown.index("0.125000 so far")
    assert "layers=10" in shown
