"""Lists in bulk are those of one session at a time, and a run that was ended goes on to the same file."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as papq
import pytest
from conftest import ROOT, make_sessions
from scale.bulk_runs import (
    N_ITEMS,
    UNKNOWN,
    batch,
    made_up,
    n_done,
    read,
    rows_of,
    started,
    vocabulary_of,
    wait_for,
    write_log,
)

from gru4rec.cli.main import main
from gru4rec.data.events import load_events
from gru4rec.data.session_map import write_session_map
from gru4rec.data.sessions import Sessions
from gru4rec.scale import bulk
from gru4rec.serve.recommender import Recommender


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return write_log(tmp_path / "log.tsv", rows_of(made_up(60, 3), 4))


def expected_row(recommender: Recommender, clicks: list[Any], k: int, **given: Any) -> dict[str, Any]:
    found = recommender.recommend(clicks, k, **given)
    return {
        "n_clicks": len(clicks),
        "n_unknown": found.n_unknown,
        "popular": found.n_unknown == len(clicks),
        "item_ids": found.item_ids,
        "scores": found.scores,
    }


# --- the same lists ---


@pytest.mark.parametrize("model", ["gru", "knn"])
@pytest.mark.parametrize(
    ("flags", "given"),
    [
        ([], {}),
        (["--exclude-seen"], {"exclude": "seen"}),
        (["--exclude-current"], {"exclude": "current"}),
        (["--exclude", "101", "139", "7"], {"exclude": [101, 139]}),
        (["--allow", "ALLOWED"], {"allow": [103, 105, 120]}),
    ],
)
@pytest.mark.parametrize("every_click", [False, True])
def test_bulk_lists_are_those_of_one_session_at_a_time(
    model: str, flags: list[str], given: Any, every_click: bool, models: Any, log: Path, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr("gru4rec.scale.bulk_job.clicks_a_part", lambda k, n_items: 50)
    monkeypatch.setattr("gru4rec.scale.bulk_lists._AT_ONCE", 7)
    (tmp_path / "allowed").write_text("103\n\n 105 \n120\n12345\n")
    flags = [str(tmp_path / "allowed") if flag == "ALLOWED" else flag for flag in flags]
    every = ["--every-click"] if every_click else []
    assert batch(models[model], log, "-o", tmp_path / "out.parquet", "-k", 5, *flags, *every) == 0
    recommender = Recommender.load(models[model])
    expected = []
    by_start = sorted(enumerate(made_up(60, 3)), key=lambda each: (10 * each[0] // 3, 5000 - each[0]))
    for number, clicks in by_start:
        for position in range(1, len(clicks) + 1) if every_click else [len(clicks)]:
            row = expected_row(recommender, clicks[:position], 5, **given)
            expected.append({"session_id": 5000 - number, **({"position": position} if every_click else {}), **row})
    assert any(row["popular"] for row in expected)
    assert any(row["n_unknown"] and not row["popular"] for row in expected)
    assert read(tmp_path / "out.parquet") == expected
    assert sorted(path.name for path in tmp_path.iterdir()) == ["allowed", "log.tsv", "out.parquet"]


@pytest.mark.parametrize("search", ["dense", "float32", "bf16", "int8"])
def test_bulk_lists_are_the_same_by_every_search(search: str, models: Any, log: Path, tmp_path: Path) -> None:
    batch(models["gru"], log, "-o", tmp_path / "auto", "--every-click")
    batch(models["gru"], log, "-o", tmp_path / "other", "--every-click", "--search", search, "--threads", 2)
    assert (tmp_path / "auto").read_bytes() == (tmp_path / "other").read_bytes()


def test_bulk_takes_text_ids_and_other_columns(models: Any, tmp_path: Path) -> None:
    rows = [("b", "item 101", 5), ("a", "item 139", 1), ("b", "new", 6), ("007", "new", 9)]
    path = write_log(tmp_path / "log.csv", [], "visit,product,when")
    path.write_text(path.read_text() + "".join(f"{s},{i},{t}\n" for s, i, t in rows))
    flags = ("-sk", "visit", "-ik", "product", "-tk", "when", "-k", 3)
    assert batch(models["text"], path, "-o", tmp_path / "out", *flags) == 0
    recommender = Recommender.load(models["text"])
    expected = {"a": ["item 139"], "b": ["item 101", "new"], "007": ["new"]}
    assert read(tmp_path / "out") == [
        {"session_id": name, **expected_row(recommender, clicks, 3)} for name, clicks in expected.items()
    ]


def test_bulk_names_the_sessions_of_a_map_by_their_places(models: Any, tmp_path: Path) -> None:
    sessions = make_sessions([[3, 4], [39], [5, 5, 0]], N_ITEMS)
    sessions = Sessions(sessions.item_idx, sessions.offsets, sessions.start_time, vocabulary_of("{}"), "made up")
    write_session_map(sessions, tmp_path / "a.sessions")
    assert batch(models["gru"], tmp_path / "a.sessions", "-o", tmp_path / "out", "-k", 2) == 0
    recommender = Recommender.load(models["gru"])
    clicks = [[103, 104], [139], [105, 105, 100]]
    assert read(tmp_path / "out") == [
        {"session_id": place, **expected_row(recommender, each, 2)} for place, each in enumerate(clicks)
    ]


def test_bulk_reads_a_folder_of_parquet_files_as_one_log(models: Any, log: Path, tmp_path: Path) -> None:
    rows = rows_of(made_up(60, 3), 4)
    spark = tmp_path / "spark"
    for number, part in enumerate((rows[:100], rows[100:])):
        (spark / f"day={number}").mkdir(parents=True)
        sessions, items, times = zip(*part, strict=True)
        kind = pa.int32() if number else pa.int64()
        table = pa.table({"ItemId": pa.array(items, kind), "SessionId": sessions, "Time": times, "day": times})
        papq.write_table(table, spark / f"day={number}" / "part.parquet")
    (spark / "_SUCCESS").touch()
    (spark / ".part.parquet").write_text("half written")
    assert batch(models["gru"], spark, "-o", tmp_path / "out") == 0
    assert batch(models["gru"], log, "-o", tmp_path / "whole") == 0
    assert (tmp_path / "out").read_bytes() == (tmp_path / "whole").read_bytes()


def test_bulk_writes_a_folder_of_parts_where_the_output_is_one(
    models: Any, log: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gru4rec.scale.bulk_job.clicks_a_part", lambda k, n_items: 50)
    assert batch(models["gru"], log, "-o", tmp_path / "whole") == 0
    (tmp_path / "empty").mkdir()
    for output in (f"{tmp_path}/new/", f"{tmp_path}/empty"):
        assert batch(models["gru"], log, "-o", output) == 0
        parts = sorted(Path(output).iterdir())
        assert [path.name for path in parts] == [f"part-{number:07}.parquet" for number in range(len(parts))]
        assert len(parts) > 3
        assert [row for path in parts for row in read(path)] == read(tmp_path / "whole")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["empty", "log.tsv", "new", "whole"]


@pytest.mark.parametrize("flags", [[], ["--exclude-seen"], ["--exclude-current"], ["--allow", "ALLOWED"]])
def test_long_lists_are_the_beginnings_of_longer_ones(
    flags: list[str], models: Any, log: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Long lists are sorted, short ones are kept in order while scores go by."""
    (tmp_path / "allowed").write_text("\n".join(str(100 + item) for item in range(0, N_ITEMS, 2)))
    flags = [str(tmp_path / "allowed") if flag == "ALLOWED" else flag for flag in flags]
    args = (models["gru"], log, "--every-click", *flags)
    assert batch(*args, "-o", tmp_path / "short", "-k", 10) == 0
    monkeypatch.setattr("gru4rec.scale.bulk_lists._LONGEST_KEPT", 9)
    assert batch(*args, "-o", tmp_path / "long", "-k", 30) == 0
    longer = read(tmp_path / "long")
    for row in longer:
        row["item_ids"], row["scores"] = row["item_ids"][:10], row["scores"][:10]
    assert read(tmp_path / "short") == longer


def test_threads_change_nothing(models: Any, log: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gru4rec.scale.bulk_job.clicks_a_part", lambda k, n_items: 20)
    for model in ("gru", "knn"):
        for threads in (1, 3):
            flags = ("--threads", threads, "--every-click")
            assert batch(models[model], log, "-o", tmp_path / f"{threads}", *flags) == 0
        assert (tmp_path / "1").read_bytes() == (tmp_path / "3").read_bytes()


def test_bulk_says_what_it_did(models: Any, log: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sessions = made_up(60, 3)
    assert main(["batch", str(models["gru"]), str(log), "-o", str(tmp_path / "out"), "--json"]) == 0
    out, err = capsys.readouterr()
    said = json.loads(out)
    n_unknown = sum(item == UNKNOWN for clicks in sessions for item in clicks)
    n_popular = sum(set(clicks) == {UNKNOWN} for clicks in sessions)
    assert (said["n_sessions"], said["n_rows"], said["n_clicks"]) == (60, 60, sum(map(len, sessions)))
    assert (said["n_unknown"], said["n_popular"], said["n_resumed"], said["search"]) == (
        n_unknown,
        n_popular,
        0,
        "dense",
    )
    assert f"{n_unknown} of {sum(map(len, sessions))} clicks skipped" in err
    assert f"60 lists, {n_popular} of popular items" in err


def test_bulk_replaces_an_output_whole(models: Any, log: Path, tmp_path: Path) -> None:
    (tmp_path / "out").write_text("of before")
    with pytest.raises(SystemExit):
        batch(models["gru"], log, "-o", tmp_path / "out", "-k", 0)
    assert batch(models["gru"], log, "-o", tmp_path / "out", "-k", N_ITEMS + 1) == 2
    assert (tmp_path / "out").read_text() == "of before"
    assert batch(models["gru"], log, "-o", tmp_path / "out") == 0
    assert len(read(tmp_path / "out")) == 60


# --- ended and gone on with ---


@pytest.fixture
def long_log(tmp_path: Path) -> Path:
    """About 100 parts of 40 clicks."""
    return write_log(tmp_path / "long.tsv", rows_of(made_up(800, 8), 9))


def test_run_killed_again_and_again_gives_the_same_file(
    models: Any, long_log: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    args = (models["gru"], long_log, "--every-click")
    whole, output = tmp_path / "whole", tmp_path / "out"
    monkeypatch.setattr("gru4rec.scale.bulk_job.clicks_a_part", lambda k, n_items: 40)
    monkeypatch.setattr("gru4rec.scale.bulk_folder._GROUP_BYTES", 200_000)
    assert batch(*args, "-o", whole) == 0
    for n_parts in (10, 40):
        process = started(40, *args, "-o", output, "--resume")
        wait_for(output, n_parts, process)
        os.kill(process.pid, signal.SIGKILL)
        process.communicate()
        assert not output.exists()
    n_clicks_before = 40 * n_done(output)  # about: a part ends with a session
    damaged = sorted(output.with_name("out.parts").glob("parts/part-*"))[3]
    damaged.write_bytes(damaged.read_bytes()[:50])  # as a power cut leaves it
    process = started(40, *args, "-o", output, "--resume", "--json")
    said = json.loads(process.communicate()[0])
    assert 0.8 * n_clicks_before < said["n_resumed"] < said["n_clicks"]
    assert output.read_bytes() == whole.read_bytes()
    assert papq.ParquetFile(output).num_row_groups > 1
    assert not output.with_name("out.parts").exists()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_run_told_to_stop_says_how_to_go_on(number: int, models: Any, long_log: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    process = started(40, models["gru"], long_log, "-o", output)
    wait_for(output, 10, process)
    process.send_signal(number)
    error = process.communicate()[1]
    assert process.returncode == 128 + number
    assert "StoppedError: stopped." in error
    assert "out.parts holds what is done; the same command with --resume goes on" in error
    assert not output.exists()
    assert batch(models["gru"], long_log, "-o", output) == 2
    assert n_done(output) >= 10


@pytest.fixture
def unfinished(models: Any, log: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An output whose run stopped after 3 parts."""
    monkeypatch.setattr("gru4rec.scale.bulk_job.clicks_a_part", lambda k, n_items: 50)
    output = tmp_path / "out"
    with pytest.raises(bulk.StoppedError):
        bulk.score_log(
            models["gru"], log, output, bulk.BulkOptions(k=5), stop_signal=lambda: 15 if n_done(output) == 3 else 0
        )
    return output


def test_unfinished_run_is_neither_replaced_nor_mixed(
    unfinished: Path, models: Any, log: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def said(*args: Any) -> str:
        assert batch(*args, "-o", unfinished) == 2
        assert n_done(unfinished) == 3
        return capsys.readouterr().err

    other = write_log(tmp_path / "other.tsv", [(1, 100, 1)])
    assert "holds a run that did not come to its end. Add --resume" in said(models["gru"], log, "-k", 5)
    assert "was begun with k 5, and 6 is asked for" in said(models["gru"], log, "-k", 6, "--resume")
    assert "was begun with every_click false, and true" in said(
        models["gru"], log, "-k", 5, "--every-click", "--resume"
    )
    assert "was begun with model" in said(models["knn"], log, "-k", 5, "--resume")
    assert "was begun with log" in said(models["gru"], other, "-k", 5, "--resume")
    assert "was begun with exclude_seen" in said(models["gru"], log, "-k", 5, "--exclude-seen", "--resume")
    assert "was begun with exclude " in said(models["gru"], log, "-k", 5, "--exclude", 101, "--resume")
    (tmp_path / "allowed").write_text("101\n102\n")
    assert "was begun with allow " in said(models["gru"], log, "-k", 5, "--allow", tmp_path / "allowed", "--resume")
    unfinished.with_name("out.parts").joinpath("manifest.json").write_text("[")
    assert "cannot read" in said(models["gru"], log, "-k", 5, "--resume")


def test_resumed_run_does_not_read_the_log_again(
    unfinished: Path, models: Any, log: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gru4rec.scale.bulk_log.load_events", None)
    assert batch(models["gru"], log, "-o", unfinished, "-k", 5, "--resume") == 0
    monkeypatch.undo()
    assert batch(models["gru"], log, "-o", tmp_path / "whole", "-k", 5) == 0
    assert read(unfinished) == read(tmp_path / "whole")


def test_unfinished_file_may_become_a_folder_without_what_was_half_written(
    unfinished: Path, models: Any, log: Path, tmp_path: Path
) -> None:
    parts = unfinished.with_name("out.parts") / "parts"
    (parts / ".part-0000005.parquet.0a1b.part").write_text("of a worker that was killed")
    n_parts = -(-sum(map(len, made_up(60, 3))) // 50)
    assert batch(models["gru"], log, "-o", f"{unfinished}/", "-k", 5, "--resume") == 0
    assert {path.name for path in unfinished.iterdir()} == {f"part-{n:07}.parquet" for n in range(n_parts)}
    assert batch(models["gru"], log, "-o", tmp_path / "whole", "-k", 5) == 0
    assert [row for path in sorted(unfinished.iterdir()) for row in read(path)] == read(tmp_path / "whole")


def test_part_that_a_power_cut_damaged_is_written_again(
    unfinished: Path, models: Any, log: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    part = unfinished.with_name("out.parts") / "parts" / "part-0000001.parquet"
    content = bytearray(part.read_bytes())
    content[4:200] = bytes(196)  # the end, which has the number of rows, is whole
    part.write_bytes(content)
    assert batch(models["gru"], log, "-o", unfinished, "-k", 5, "--resume") == 2
    said = capsys.readouterr().err
    assert "part-0000001.parquet was damaged. The same command with --resume" in said
    assert batch(models["gru"], log, "-o", unfinished, "-k", 5, "--resume") == 0
    assert batch(models["gru"], log, "-o", tmp_path / "whole", "-k", 5) == 0
    assert unfinished.read_bytes() == (tmp_path / "whole").read_bytes()


def test_run_killed_at_its_very_end_is_no_run_to_go_on_with(
    unfinished: Path, models: Any, log: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as killed:
        killed.setattr("gru4rec.scale.bulk_folder.shutil.rmtree", lambda *given, **options: None)
        assert batch(models["gru"], log, "-o", unfinished, "-k", 5, "--resume") == 0
    assert n_done(unfinished) > 3
    assert batch(models["gru"], log, "-o", unfinished, "-k", 6) == 0
    assert {len(row["item_ids"]) for row in read(unfinished)} == {6}
    assert not unfinished.with_name("out.parts").exists()


def test_log_that_changes_while_it_is_read_is_refused(
    models: Any, log: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def load_and_change(*given: Any, **options: Any) -> Any:
        loaded = load_events(*given, **options)
        log.write_text(log.read_text() + "1\t101\t1\n")
        return loaded

    monkeypatch.setattr("gru4rec.scale.bulk_log.load_events", load_and_change)
    assert batch(models["gru"], log, "-o", tmp_path / "out") == 2
    assert "log.tsv was changed while it was read" in capsys.readouterr().err
    assert {path.name for path in tmp_path.iterdir()} == {"log.tsv"}


def test_two_runs_do_not_share_a_folder(
    unfinished: Path, models: Any, log: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from filelock import FileLock

    with FileLock(unfinished.with_name("out.parts") / ".lock"):
        assert batch(models["gru"], log, "-o", unfinished, "-k", 5, "--resume") == 2
    assert "another process works in" in capsys.readouterr().err


# --- wrong input ---


def test_wrong_input_is_one_message_and_leaves_nothing(
    models: Any, log: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "empty").write_text("\n")
    (tmp_path / "strange").write_text("5\n")
    strangers = write_log(tmp_path / "strangers.tsv", [(1, UNKNOWN, 1)])
    theirs = tmp_path / "theirs.parts"
    theirs.mkdir()
    (theirs / "letter.txt").write_text("mine")
    wrong_columns, mixed = tmp_path / "wrong", tmp_path / "mixed"
    for folder, columns in ((wrong_columns, ("SessionId", "ItemId")), (mixed, ("SessionId", "ItemId", "Time"))):
        folder.mkdir()
        papq.write_table(pa.table({name: [1] for name in columns}), folder / "a.parquet")
        papq.write_table(pa.table({name: ["a"] for name in columns}), folder / "b.parquet")
    before = {path.name for path in tmp_path.iterdir()}
    out = tmp_path / "out"
    wrong: dict[str, tuple[Any, ...]] = {
        "cannot open|is no model file|there is no|cannot read": (tmp_path / "none.gru4rec", log, "-o", out),
        "none.tsv": (models["gru"], tmp_path / "none.tsv", "-o", out),
        "no column 'product'": (models["gru"], log, "-o", out, "-ik", "product"),
        "none of the 1 items of .*strangers.tsv is known": (models["gru"], strangers, "-o", out),
        "k=41 is out of range": (models["gru"], log, "-o", out, "-k", 41),
        "--allow .*empty holds no ids": (models["gru"], log, "-o", out, "--allow", tmp_path / "empty"),
        "cannot read --allow": (models["gru"], log, "-o", out, "--allow", tmp_path / "nowhere"),
        "none of the 1 allowed items is known": (models["gru"], log, "-o", out, "--allow", tmp_path / "strange"),
        "would replace .*log.tsv": (models["gru"], log, "-o", log),
        "is a folder that is not empty": (models["gru"], log, "-o", tmp_path),
        "out.parquet would lie in .*mixed, which is read": (models["gru"], mixed, "-o", mixed / "out.parquet"),
        "out.TSV.gz is named like a text file": (models["gru"], log, "-o", tmp_path / "out.TSV.gz"),
        "ends like a folder and is a file": (models["gru"], log, "-o", f"{log}/"),
        "theirs.parts is a folder without Parquet files": (models["gru"], theirs, "-o", out),
        "wrong has no Time|no column 'Time'": (models["gru"], wrong_columns, "-o", out),
        "mixed differ|of type": (models["gru"], mixed, "-o", out),
        "there is no folder": (models["gru"], log, "-o", tmp_path / "no" / "out"),
        "is of something else": (models["gru"], log, "-o", tmp_path / "theirs"),
        "int8 .*Choose dense": (models["knn"], log, "-o", out, "--search", "int8"),
    }
    import re

    for message, args in wrong.items():
        assert batch(*args) == 2, message
        said = capsys.readouterr().err
        assert re.search(message, said), (message, said)
        assert said.count("\n") == 1
        assert {path.name for path in tmp_path.iterdir()} == before, message
    assert (theirs / "letter.txt").read_text() == "mine"


# --- memory ---


MEMORY = """
import contextlib
import sys
import psutil
import torch
from gru4rec.scale import bulk, bulk_folder, bulk_job
torch.set_num_threads(1)
bulk_job.clicks_a_part, bulk_folder._GROUP_BYTES = lambda k, n_items: 2000, 200_000
held = []

@contextlib.contextmanager
def watched(n_clicks):
    yield lambda n_done: held.append(psutil.Process().memory_info().rss)

bulk.score_log(*sys.argv[1:], bulk.BulkOptions(k=40), progress=watched)
print(len(held), max(held) - held[5])
"""


def test_memory_does_not_grow_with_the_sessions(models: Any, tmp_path: Path) -> None:
    """The lists of 30,000 sessions would take 19 MB as numbers, and several times that as objects."""
    n_sessions = 30_000
    clicks = np.arange(2 * n_sessions, dtype=np.int32) % N_ITEMS
    offsets = np.arange(0, 2 * n_sessions + 1, 2)
    sessions = Sessions(clicks, offsets, np.arange(n_sessions), vocabulary_of("{}"), "made up")
    write_session_map(sessions, tmp_path / "a.sessions")
    done = subprocess.run(
        [sys.executable, "-c", MEMORY, str(models["gru"]), str(tmp_path / "a.sessions"), str(tmp_path / "out")],
        capture_output=True, text=True, cwd=ROOT, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    n_parts, grown_bytes = map(int, done.stdout.split())
    assert n_parts == 30
    assert grown_bytes < 6e6
    assert papq.read_metadata(tmp_path / "out").num_rows == n_sessions
