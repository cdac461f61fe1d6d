"""Wrong input to ``gru4rec prepare``: one message (what, where, what to do), status 2, nothing half written."""

from __future__ import annotations

import gzip
import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from gru4rec.cli.main import main
from gru4rec.prepare import job
from gru4rec.prepare.write import write_part

START = 1_599_955_200


def a_raw(folder: Path, name: str = "raw.csv", separator: str = ",", **changes: str) -> Path:
    """Write a small raw log; ``changes`` replace the text of rows, counted from 1, as row_7="..."."""
    rows = [
        f"{user},{item},{START + day * 86_400 + item}" for day in range(8) for user in range(9) for item in (1, 2, 3)
    ]
    for place, text in changes.items():
        rows[int(place.removeprefix("row_")) - 1] = text
    path = folder / name
    path.write_text("\n".join(["user,item,time", *rows]).replace(",", separator) + "\n")
    return path


KEYS = ["--user_key", "user", "--item_key", "item", "--time_key", "time"]


def refused(capsys: pytest.CaptureFixture[str], folder: Path, *argv: str, keys: list[str] = KEYS) -> str:
    """Run the command, make sure that it is refused and leaves nothing, and return the message."""
    before = sorted(path.name for path in folder.rglob("*"))
    status = main(["prepare", "-o", str(folder / "out"), *keys, *argv])
    assert status == 2
    assert sorted(path.name for path in folder.rglob("*")) == before
    output = capsys.readouterr()
    assert output.out == ""
    assert output.err.count("Error: ") == 1, output.err
    assert output.err.count("\n") == 1, output.err
    return output.err


FLAGS = [
    (["--gap", "1 fortnight"], "'1 fortnight' is no duration. Give a number above 0 and a unit"),
    (["--gap", "0h"], "'0h' is no duration"),
    (["--gap=-1h"], "'-1h' is no duration"),
    (["--test_days", "0"], "test_days must be above 0"),
    (["--test_days", "nan"], "test_days must be above 0"),
    (["--test_days", "1", "--test_fraction", "0.1"], "give one of --test_days, --test_from and --test_fraction"),
    (["--test_fraction", "0.5"], "test_fraction=0.5 leaves no room for training"),
    (["--test_fraction", "0"], "test_fraction=0.0 leaves no room for training"),
    (["--test_from", "yesterday"], "'yesterday' is no date. Give one such as 2014-09-29"),
    (["--test_from", "2020-09-19", "--windows", "2"], "--windows needs test periods of one length: give --test_days"),
    (["--windows", "0"], "windows=0 is below 1"),
    (["--train_days", "0"], "train_days must be above 0"),
    (["--min_session_length", "0"], "min_session_length and min_item_support are numbers of events. Give 1 or more"),
    (["--min_item_support", "-1"], "Give 1 or more"),
    (["--keep", "event"], "'event' is no condition. Give COLUMN=VALUE"),
    (["--keep", "=view"], "'=view' is no condition"),
    (["--keep", "event=view"], "no column 'event' in "),
    (["--keep", "item=9"], "no row of "),
    (["--keep_after_cut", "item=9"], "nothing is left of 216 rows (216 of another kind or without an item"),
    (["--keep_after_cut", "event=view", "--gap", "none"], "--keep_after_cut needs a cut: give --gap, or use --keep"),
    (["--session_key", "item"], "give one of --session_key and --user_key"),
    (["--separator", "::"], "separator '::' is not one ASCII character"),
    (["--separator", "§"], "separator '§' is not one ASCII character"),
    (["--separator", '"'], "is not one ASCII character"),
    (["--header", "a,b"], "has 3 fields, and --header names 2 columns"),
    (["--item_key", "user"], "must be three columns, not user, user, time"),
    (["--time_key", "when"], "no column 'when' in "),
    (["--separator", ";"], "(separated by semicolon); it has: user,item,time. Pass --user_key"),
    (["--time_unit", "ns"], "look like s since 1970 (such as 1599955201), and not like --time_unit ns. Leave"),
    (
        ["--test_days", "30"],
        "the split leaves no events for train_full, test, train_tr, train_valid: the filtered log goes from ",
    ),
    (["--windows", "9"], "the split leaves no events for "),
    (
        ["--test_from", "2030-01-01"],
        "the test begins at 2030-01-01 00:00:00, after the last event of the filtered log (2020",
    ),
    (["--keep", "event==view"], "'event==view' is no condition"),
    (["--keep", "item=nine"], "and --keep: column 'item' holds '1' (72), '2' (72), '3' (72)"),
    (["--date_key", "item"], "item is '1' in row 1 of "),
    (["--min_item_support", "1000"], "nothing is left of 216 rows"),
    (["--recipe", "rees46", "--gap", "2h"], "--recipe decides --user_key itself. Leave one of the two out"),
]


@pytest.mark.parametrize(("flags", "message"), FLAGS, ids=[" ".join(flags) for flags, _ in FLAGS])
def test_wrong_flag_is_refused(
    flags: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert message in refused(capsys, tmp_path, str(a_raw(tmp_path)), *flags)


ROWS = [
    ("0,1,soon", "time is 'soon' in row 100 of "),
    ("0,1,2020-13-45", "time is '2020-13-45' in row 100 of "),
    ("0,1,inf", "time is 'inf' in row 100 of "),
    ("0,1,1,1", "has more fields than its first line: row 100 has 4 fields and not 3 ('0,1,1,1')"),
    (
        f"0,1,{START}000",
        "mixes units of time: 215 rows look like s since 1970 and 1 like ms (the first is 1599955200000)",
    ),
    ('0,"1\n2",1599955200', "an id in column 'item' of "),
]


@pytest.mark.parametrize(("row", "message"), ROWS, ids=[row for row, _ in ROWS])
def test_wrong_row_is_named(row: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert message in refused(capsys, tmp_path, str(a_raw(tmp_path, row_100=row)))


def test_wrong_row_of_a_second_file_is_named_with_that_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first, second = a_raw(tmp_path), a_raw(tmp_path, "more.csv", row_9="0,1,never")
    assert f"time is 'never' in row 9 of {second}" in refused(capsys, tmp_path, str(first), str(second))


def test_wrong_files_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    raw = a_raw(tmp_path)
    contents = {
        "empty.csv": (b"", "is empty"),
        "header.csv": (b"user,item,time\n", "no row of "),
        "no_line_end.csv": (b"user,item,time", "no row of "),
        "cut.csv.gz": (gzip.compress(raw.read_bytes())[:-20], "cannot read "),
        "cut.parquet": (b"PAR1" + bytes(40), "cannot read "),
        "image.png": (b"\x89PNG\r\n\x1a\n\0\0\0", "is neither text nor Parquet"),
        "latin.csv": ("user,item,time\n1,caf\u00e9,1599955200\n".encode("latin-1"), "is not UTF-8 text"),
        "broken.jsonl": (b'{"user":1,"item":2,"time":1599955200}\n{"user":1,"it', "cannot read "),
        "list.json": (b'[{"user":1,"item":2,"time":3}]', "no column 'user', 'item', 'time' in "),
        "twice.csv": (b"user,item,time,user\n1,2,3,4\n", "column 'user' stands 2 times in "),
    }
    for name, (content, _) in contents.items():
        (tmp_path / name).write_bytes(content)
    for name, (_, message) in contents.items():
        said = refused(capsys, tmp_path, str(tmp_path / name))
        assert message in said
        assert name in said
    assert "there is no file " in refused(capsys, tmp_path, str(tmp_path / "none.csv"))
    assert "there is no file " in refused(capsys, tmp_path, str(tmp_path / "none-*.csv"))
    assert "is a folder. Give its files" in refused(capsys, tmp_path, str(tmp_path))


def test_unknown_time_unit_says_what_to_do(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    raw = tmp_path / "raw.csv"
    raw.write_text("user,item,time\n" + "".join(f"{row // 3},{row % 3},{row}\n" for row in range(90)))
    assert "--gap needs the unit of the times" in refused(capsys, tmp_path, str(raw))
    assert "--test_days needs the unit of the times" in refused(capsys, tmp_path, str(raw), "--gap", "none")


def test_an_existing_folder_is_not_touched(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    raw = a_raw(tmp_path)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.txt").write_text("years of work")
    assert "is there already. Give another folder, or --force" in refused(capsys, tmp_path, str(raw))
    assert "is no folder of prepared logs, and stays" in refused(capsys, tmp_path, str(raw), "--force")
    (tmp_path / "out" / "stats.json").write_text("{}")
    inside = a_raw(tmp_path / "out")
    assert "holds a file that is read" in refused(capsys, tmp_path, str(inside), "--force")
    assert (tmp_path / "out" / "thesis.txt").read_text() == "years of work"


def test_a_file_in_the_place_of_the_folder_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    raw = a_raw(tmp_path)
    (tmp_path / "out").write_text("")
    assert "is a file. Give a folder that does not exist yet" in refused(capsys, tmp_path, str(raw))
    status = main(["prepare", str(raw), "-o", str(raw / "out"), *KEYS])
    assert status == 2
    assert "cannot write " in capsys.readouterr().err


def test_force_replaces_and_a_failure_keeps_the_old_folder(tmp_path: Path) -> None:
    raw, out = a_raw(tmp_path), tmp_path / "out"
    argv = ["prepare", str(raw), "-o", str(out), "--quiet", *KEYS]
    out.mkdir()  # an empty folder is as good as none
    assert main(argv) == 0
    before = (out / "stats.json").read_text()
    assert main(argv) == 2
    assert main([*argv, "--force", "--test_days", "30"]) == 2
    assert (out / "stats.json").read_text() == before
    assert main([*argv, "--force", "--tsv"]) == 0
    assert {path.suffix for path in out.iterdir()} == {".tsv", ".json", ".txt"}
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def ended_by(sent: int, folder: Path) -> int:
    """Run the command, end it by a signal while it writes, make sure that nothing is left; return its status."""
    raw = folder / "raw.csv"
    rows = "".join(f"{row // 3},{row % 977},{START + 2 * row}\n" for row in range(600_000))
    raw.write_text("user,item,time\n" + rows)
    code = "from gru4rec.cli.main import command; command()"
    argv = [sys.executable, "-c", code, "prepare", str(raw), "-o", str(folder / "out"), *KEYS]
    process = subprocess.Popen(argv, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL, cwd=folder)
    try:
        deadline = time.monotonic() + 60
        while not list(folder.glob(".out.*.partial")) and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.001)
        process.send_signal(sent)
        process.wait(timeout=60)
    finally:
        if process.poll() is None:
            os.kill(process.pid, signal.SIGKILL)
            process.wait()
    if process.returncode == 0:
        pytest.skip("the run was over before the signal came")
    assert [path.name for path in folder.iterdir()] == ["raw.csv"]
    return process.returncode


def test_a_run_that_is_interrupted_leaves_no_output(tmp_path: Path) -> None:
    assert ended_by(signal.SIGINT, tmp_path) == 130


def test_a_field_too_many_is_found_where_the_last_column_is_not_read(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A separator in a name would shift the columns behind it: 'Shoes, red' makes the colour the item."""
    raw = a_raw(tmp_path, row_50="0,1,1599955200")
    lines = [f"shop,{line},," for line in raw.read_text().splitlines()]
    lines[50] = "shop, red,0,1,1599955200,,"
    raw.write_text("\n".join(lines).replace("shop,user,item,time,,", "shop,user,item,time,a,b") + "\n")
    assert "row 50 has 7 fields and not 6" in refused(capsys, tmp_path, str(raw))


def test_a_split_that_fails_says_what_was_lost_before(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    raw = a_raw(tmp_path, row_5="0,9,1599955201", row_9="0,3,1599955206")
    said = refused(capsys, tmp_path, str(raw), "--test_days", "30")
    assert "Of 216 rows there were left out before: 1 repeat the item just before, 1 of items with too few" in said


def test_a_length_that_is_none_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["prepare", "raw.csv", "-o", str(tmp_path / "out"), "--test_days", "1d and a half"])
    assert stopped.value.code == 2
    assert "'1d and a half' is no duration" in capsys.readouterr().err


def test_a_condition_given_twice_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    argv = ["prepare", str(a_raw(tmp_path)), "-o", str(tmp_path / "out"), *KEYS, "--keep", "item=1", "--keep", "item=2"]
    with pytest.raises(SystemExit) as stopped:
        main(argv)
    assert stopped.value.code == 2
    assert "--keep was given twice. Give its values together" in capsys.readouterr().err


def test_a_folder_that_comes_while_the_log_is_read_stays(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    raw, out = a_raw(tmp_path), tmp_path / "out"

    def write_beside(*given: object, **options: object) -> None:
        out.mkdir(exist_ok=True)
        (out / "thesis.txt").write_text("years of work")
        write_part(*given, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(job, "write_part", write_beside)
    assert main(["prepare", str(raw), "-o", str(out), *KEYS]) == 2
    assert "is there already" in capsys.readouterr().err
    assert [path.name for path in out.iterdir()] == ["thesis.txt"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "raw.csv"]


def test_a_full_disk_leaves_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The system's own limit on the size of a file, which a write meets as it meets a full disk."""
    raw = a_raw(tmp_path)
    before, handler = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (600, before[1]))
        status = main(["prepare", str(raw), "-o", str(tmp_path / "out"), *KEYS])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
    assert status == 2
    assert "Choose a folder that can be written to, on a disk with room" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["raw.csv"]


def test_a_cache_inside_the_output_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cache = str(tmp_path / "out" / "cache")
    assert "would lie in" in refused(capsys, tmp_path, str(a_raw(tmp_path)), "--cache", cache)


def test_a_name_that_is_too_long_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "File name too long" in refused(capsys, tmp_path, str(tmp_path / ("x" * 300)))
    assert main(["prepare", str(a_raw(tmp_path)), "-o", str(tmp_path / ("y" * 300)), *KEYS]) == 2
    assert "File name too long" in capsys.readouterr().err


def test_a_run_that_is_told_to_end_leaves_nothing(tmp_path: Path) -> None:
    """SIGTERM, as a scheduler sends it, once the folder to come is being written."""
    assert ended_by(signal.SIGTERM, tmp_path) == 143
