"""The same log in every form gives the same result; ids and times are what the files say."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as papq
import pytest

from gru4rec.cli.main import main
from gru4rec.data.events import load_events
from gru4rec.data.sessions import Sessions
from gru4rec.prepare import raw, steps, write

START = 1_599_955_200  # 2020-09-13 00:00 UTC


def a_log(n_users: int = 40, seed: int = 3) -> pd.DataFrame:
    """Visits of some hours in ten days, in time order; users come back, and some events are at equal times."""
    rng = np.random.default_rng(seed)
    n = n_users * 30
    user, item = rng.integers(1, n_users + 1, n), rng.integers(1, 12, n)
    time = START + rng.integers(0, 10, n) * 86_400 + rng.integers(0, 4, n) * 1_800
    return pd.DataFrame({"user": user, "item": item, "time": np.sort(time)})


def prepare(given: list[Path] | Path, out: Path, *flags: str) -> dict[str, Any]:
    paths = [str(path) for path in (given if isinstance(given, list) else [given])]
    keys = ["--user_key", "user", "--item_key", "item", "--time_key", "time", "--test_days", "2"]
    assert main(["prepare", *paths, "-o", str(out), "--quiet", *keys, *flags]) == 0
    return json.loads((out / "stats.json").read_text())


def parts(out: Path) -> dict[str, pa.Table]:
    return {path.stem: papq.read_table(path) for path in sorted(out.glob("*.parquet"))}


def written(frame: pd.DataFrame, path: Path, form: str) -> Path:
    """Write a frame in one of the forms that raw logs come in."""
    kind, _, packing = form.partition(".")
    path = path / f"raw.{form}"
    if kind == "parquet":
        frame.to_parquet(path, index=False)
        return path
    if kind == "jsonl":
        content = frame.to_json(orient="records", lines=True)
    else:
        content = frame.to_csv(index=False, sep={"csv": ",", "tsv": "\t", "txt": ";", "dat": "|"}[kind])
    data = content.encode()
    if packing == "gz":
        data = gzip.compress(data)
    if packing == "zst":
        data = pa.Codec("zstd").compress(data, asbytes=True)
    path.write_bytes(data)
    return path


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> dict[str, pa.Table]:
    folder = tmp_path_factory.mktemp("plain")
    prepare(written(a_log(), folder, "csv"), folder / "out")
    return parts(folder / "out")


FORMS = ["tsv", "txt", "dat", "jsonl", "parquet", "csv.gz", "tsv.zst", "jsonl.gz", "jsonl.zst"]


@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_a_log_gives_the_same(form: str, tmp_path: Path, expected: dict[str, pa.Table]) -> None:
    prepare(written(a_log(), tmp_path, form), tmp_path / "out")
    assert parts(tmp_path / "out") == expected


def test_several_files_and_a_pattern_are_one_log(tmp_path: Path, expected: dict[str, pa.Table]) -> None:
    log = a_log()
    for number, start in enumerate(range(0, len(log), 500)):
        log[start : start + 500].to_csv(tmp_path / f"raw-{number}.csv", index=False)
    account = prepare(tmp_path / "raw-*.csv", tmp_path / "out")
    assert parts(tmp_path / "out") == expected
    assert [Path(file["path"]).name for file in account["files"]] == ["raw-0.csv", "raw-1.csv", "raw-2.csv"]
    assert account["rows"] == len(log)


def test_the_same_file_given_twice_is_read_once(tmp_path: Path, expected: dict[str, pa.Table]) -> None:
    path = written(a_log(), tmp_path, "csv")
    (tmp_path / "link.csv").symlink_to(path)
    prepare([path, path, tmp_path / "link.csv"], tmp_path / "out")
    assert parts(tmp_path / "out") == expected


def test_files_of_several_forms_mix(tmp_path: Path, expected: dict[str, pa.Table]) -> None:
    log = a_log()
    prepare([written(log[:500], tmp_path, "csv"), written(log[500:], tmp_path, "parquet")], tmp_path / "out")
    assert parts(tmp_path / "out") == expected


def test_a_file_without_header_is_named_by_header(tmp_path: Path, expected: dict[str, pa.Table]) -> None:
    frame = a_log()[["time", "item", "user"]].assign(more="x")
    frame.to_csv(tmp_path / "raw.dat", index=False, header=False)
    prepare(tmp_path / "raw.dat", tmp_path / "out", "--header", "time,item,user,more")
    assert parts(tmp_path / "out") == expected


DISGUISES: dict[str, Callable[[str], bytes]] = {
    "Windows line ends": lambda text: text.replace("\n", "\r\n").encode(),
    "byte order mark": lambda text: text.encode("utf-8-sig"),
    "no line end at the end": lambda text: text.rstrip().encode(),
    "quoted fields": lambda text: "\n".join(
        ",".join(f'"{x}"' for x in row.split(",")) for row in text.split()
    ).encode(),
}


@pytest.mark.parametrize("disguise", DISGUISES)
def test_text_files_of_other_programs_are_read(disguise: str, tmp_path: Path, expected: dict[str, pa.Table]) -> None:
    (tmp_path / "raw.csv").write_bytes(DISGUISES[disguise](a_log()[["item", "time", "user"]].to_csv(index=False)))
    prepare(tmp_path / "raw.csv", tmp_path / "out")
    assert parts(tmp_path / "out") == expected


def test_byte_order_mark_before_the_first_value_is_no_part_of_it(tmp_path: Path, expected: dict[str, pa.Table]) -> None:
    text = a_log().to_csv(index=False, header=False)
    (tmp_path / "raw.csv").write_bytes(text.encode("utf-8-sig"))
    prepare(tmp_path / "raw.csv", tmp_path / "out", "--header", "user,item,time")
    assert parts(tmp_path / "out") == expected


def test_tsv_holds_what_parquet_holds(tmp_path: Path, expected: dict[str, pa.Table]) -> None:
    prepare(written(a_log(), tmp_path, "csv"), tmp_path / "out", "--tsv")
    for name, table in expected.items():
        frame = pd.read_csv(tmp_path / "out" / f"{name}.tsv", sep="\t")
        assert pa.Table.from_pandas(frame, preserve_index=False).to_pydict() == table.to_pydict()


def test_the_prepared_log_trains_as_it_is(tmp_path: Path) -> None:
    account = prepare(written(a_log(), tmp_path, "csv"), tmp_path / "out")
    sessions = Sessions.from_log(load_events(tmp_path / "out" / "train_full.parquet"))
    counts = account["windows"][0]["parts"]["train_full"]
    assert (sessions.n_events, sessions.n_sessions, sessions.items.n_items) == (
        counts["events"], counts["sessions"], counts["items"]
    )  # fmt: skip


TIMES: dict[str, Callable[[pd.Series], Any]] = {
    "milliseconds": lambda s: s * 1_000,
    "microseconds": lambda s: s * 1_000_000,
    "nanoseconds": lambda s: s * 1_000_000_000,
    "float seconds": lambda s: s.astype(float),
    "ISO with Z": lambda s: pd.to_datetime(s, unit="s").dt.strftime("%Y-%m-%dT%H:%M:%SZ"),
    "ISO with milliseconds": lambda s: pd.to_datetime(s, unit="s").dt.strftime("%Y-%m-%dT%H:%M:%S.000Z"),
    "with UTC": lambda s: pd.to_datetime(s, unit="s").dt.strftime("%Y-%m-%d %H:%M:%S UTC"),
    "without a zone": lambda s: pd.to_datetime(s, unit="s").dt.strftime("%Y-%m-%d %H:%M:%S"),
    "two hours east": lambda s: pd.to_datetime(s + 7_200, unit="s").dt.strftime("%Y-%m-%dT%H:%M:%S+02:00"),
    "half past three west": lambda s: pd.to_datetime(s - 12_600, unit="s").dt.strftime("%Y-%m-%dT%H:%M:%S-0330"),
}


@pytest.mark.parametrize("form", TIMES)
def test_times_of_any_form_cut_and_split_alike(form: str, tmp_path: Path, expected: dict[str, pa.Table]) -> None:
    log = a_log()
    log["time"] = TIMES[form](log["time"])
    account = prepare(written(log, tmp_path, "csv"), tmp_path / "out")
    factor = {"milliseconds": 1_000, "microseconds": 1_000_000, "nanoseconds": 1_000_000_000}.get(form, 1)
    assert account["time_unit"] == {1_000: "ms", 1_000_000: "us", 1_000_000_000: "ns"}.get(factor, "s")
    for name, table in parts(tmp_path / "out").items():
        assert table["SessionId"] == expected[name]["SessionId"]
        assert table["ItemId"] == expected[name]["ItemId"]
        assert table["Time"].to_pylist() == [time * factor for time in expected[name]["Time"].to_pylist()]


@pytest.mark.parametrize("kind", [pl.Datetime("ms"), pl.Datetime("us", "UTC"), pl.Datetime("ns", "Europe/Berlin")])
def test_timestamps_of_parquet_are_read(kind: pl.DataType, tmp_path: Path, expected: dict[str, pa.Table]) -> None:
    moment = pl.from_epoch("time", time_unit="s").dt.replace_time_zone("UTC")
    moment = moment.dt.convert_time_zone(kind.time_zone) if kind.time_zone else moment.dt.replace_time_zone(None)
    pl.from_pandas(a_log()).with_columns(moment.cast(kind)).write_parquet(tmp_path / "raw.parquet")
    prepare(tmp_path / "raw.parquet", tmp_path / "out")
    assert parts(tmp_path / "out") == expected


def test_fractions_of_a_second_are_kept(tmp_path: Path) -> None:
    log = a_log()
    log["time"] = pd.to_datetime(log["time"] * 1_000 + 277, unit="ms").dt.strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    prepare(written(log, tmp_path, "csv"), tmp_path / "out")
    times = parts(tmp_path / "out")["train_full"]["Time"]
    assert times.type == pa.float64()
    assert {round(time % 1, 6) for time in times.to_pylist()} == {0.277}


def test_an_hour_is_exact_in_fractional_seconds(tmp_path: Path) -> None:
    """Two users pause for an hour and for a microsecond more; in binary fractions both would be rounded."""
    rows = []
    for day in range(6):
        for user, more in (("a", 0), ("b", 1)):
            for number in range(3):
                us = (START + day * 86_400) * 1_000_000 + 100_001 + number * (3_600_000_000 + more)
                stamp = pd.to_datetime(us, unit="us").strftime("%Y-%m-%dT%H:%M:%S.%fZ")
                rows.append((user, number, stamp))
    pd.DataFrame(rows, columns=["user", "item", "time"]).to_csv(tmp_path / "raw.csv", index=False)
    account = prepare(tmp_path / "raw.csv", tmp_path / "out", "--min_session_length", "1")
    assert account["log"]["sessions"] == 6 * (1 + 3)


def test_ids_that_a_number_would_change_stay_text(tmp_path: Path) -> None:
    log = a_log()
    log["item"] = log["item"].map("{:03d}".format)
    prepare(written(log, tmp_path, "csv"), tmp_path / "out")
    items = parts(tmp_path / "out")["train_full"]["ItemId"]
    assert items.type == pa.string()
    assert set(items.to_pylist()) == {f"{item:03d}" for item in range(1, 12)}


@pytest.mark.parametrize("odd", ["x1", "007", "+7", "1.5", "99999999999999999999", "-0"])
def test_one_late_text_among_integer_ids_makes_all_of_them_text(odd: str, tmp_path: Path) -> None:
    """Beyond the rows that the guess is made from: nothing that was read before may be lost or changed."""
    log = a_log(n_users=100)
    log["item"] = log["item"].astype(str)
    log.loc[log.index[-1500:-1480], "item"] = odd
    prepare(written(log, tmp_path, "csv"), tmp_path / "out", "--min_session_length", "1")
    items = parts(tmp_path / "out")["train_full"]["ItemId"].to_pylist()
    assert set(items) == {str(item) for item in range(1, 12)} | {odd}


@pytest.mark.parametrize("spread", [1, 1_000_003, 2**40])
def test_codes_follow_integers_however_far_apart(spread: int, tmp_path: Path, expected: dict[str, pa.Table]) -> None:
    log = a_log()
    log["user"] = (log["user"] - 20) * spread
    log["item"] = (log["item"] - 6) * spread
    prepare(written(log, tmp_path, "csv"), tmp_path / "out")
    for name, table in parts(tmp_path / "out").items():
        assert table["SessionId"] == expected[name]["SessionId"]
        assert table["ItemId"].to_pylist() == [(item - 6) * spread for item in expected[name]["ItemId"].to_pylist()]


def test_text_ids_sort_by_code_point(tmp_path: Path) -> None:
    log = a_log()
    names = ["ä", "Z", "a", "é€", "10", "9", "_", "zz", "日本", "A b", "ß"]
    log["item"] = [names[item - 1] for item in log["item"]]
    log["time"] = START + (log["time"] - START) // 86_400 * 86_400  # a day's events at one time: the item decides
    prepare(written(log, tmp_path, "csv"), tmp_path / "out")
    train = parts(tmp_path / "out")["train_full"].to_pandas()
    for _, session in train.groupby("SessionId"):
        assert session["ItemId"].tolist() == sorted(session["ItemId"], key=lambda text: [ord(c) for c in text])


def test_rows_without_an_id_or_a_time_are_counted_and_left_out(tmp_path: Path) -> None:
    log = a_log().astype(object)
    log.loc[[3, 700], "item"] = ""
    log.loc[[4, 5, 6], "user"] = ""
    log.loc[7, "time"] = ""
    account = prepare(written(log, tmp_path, "csv"), tmp_path / "out")
    assert {reason: account["dropped"][reason] for reason in ("no_user", "no_item", "no_time")} == {
        "no_user": 3, "no_item": 2, "no_time": 1
    }  # fmt: skip
    clean = written(a_log().drop([3, 700, 4, 5, 6, 7]), tmp_path, "tsv")
    prepare(clean, tmp_path / "clean")
    assert parts(tmp_path / "out") == parts(tmp_path / "clean")


def test_keep_takes_events_of_one_kind(tmp_path: Path, expected: dict[str, pa.Table]) -> None:
    log = a_log().assign(event="view")
    carts = a_log(seed=5)[:300].assign(event="cart")
    mixed = pd.concat([log, carts, carts.assign(event="")]).sort_values("time", kind="stable")
    account = prepare(written(mixed, tmp_path, "csv"), tmp_path / "out", "--keep", "event=view,detail")
    assert parts(tmp_path / "out") == expected
    assert account["dropped"]["other_event"] == 600


def test_keep_skips_a_file_that_has_no_such_event(tmp_path: Path, expected: dict[str, pa.Table]) -> None:
    views = written(a_log().assign(event="view"), tmp_path, "csv")
    carts = written(a_log(seed=5)[:300].assign(event="cart"), tmp_path, "tsv")
    account = prepare([carts, views, carts], tmp_path / "out", "--keep", "event=view")
    assert parts(tmp_path / "out") == expected
    assert account["dropped"]["other_event"] == 300


def test_keep_any_value_takes_rows_that_have_one(tmp_path: Path, expected: dict[str, pa.Table]) -> None:
    mixed = pd.concat([a_log().assign(event="a b"), a_log(seed=5).assign(event="")]).sort_values("time", kind="stable")
    prepare(written(mixed, tmp_path, "csv"), tmp_path / "out", "--keep", "event=*")
    assert parts(tmp_path / "out") == expected


def test_keep_after_cut_lets_other_events_bridge_a_pause(tmp_path: Path) -> None:
    rows = []
    for day in range(6):
        start = START + day * 86_400
        rows += [("a", 1, start, "view"), ("a", "", start + 3_000, "search"), ("a", 2, start + 6_000, "view")]
        rows += [("b", 1, start, "view"), ("b", 2, start + 6_000, "view")]
    pd.DataFrame(rows, columns=["user", "item", "time", "event"]).to_csv(tmp_path / "raw.csv", index=False)
    account = prepare(tmp_path / "raw.csv", tmp_path / "out", "--keep_after_cut", "event=view")
    assert account["dropped"] == {"only_for_the_cut": 6, "short_session": 12}
    assert account["log"]["sessions"] == 6


def test_order_only_times_split_by_fraction(tmp_path: Path) -> None:
    log = pd.DataFrame({"user": np.repeat(np.arange(50), 3), "item": np.tile([1, 2, 3], 50), "time": np.arange(150)})
    account = prepare_by_fraction(log, tmp_path)
    assert account["time_unit"] is None
    assert account["windows"][0]["parts"]["test"]["sessions"] == 5


def prepare_by_fraction(log: pd.DataFrame, folder: Path) -> dict[str, Any]:
    path = written(log, folder, "csv")
    keys = ["--session_key", "user", "--item_key", "item", "--time_key", "time", "--test_fraction", "0.1"]
    assert main(["prepare", str(path), "-o", str(folder / "out"), "--quiet", *keys]) == 0
    return json.loads((folder / "out" / "stats.json").read_text())


def test_time_unit_says_what_size_does_not(tmp_path: Path) -> None:
    """Seconds since the shop opened: the same sessions as with seconds since 1970."""
    log = a_log()
    log["time"] -= START
    account = prepare(written(log, tmp_path, "csv"), tmp_path / "out", "--time_unit", "s")
    prepare(written(a_log(), tmp_path, "tsv"), tmp_path / "usual")
    assert parts(tmp_path / "out")["test"]["ItemId"] == parts(tmp_path / "usual")["test"]["ItemId"]
    assert account["time_unit"] == "s"


def test_a_quote_within_a_field_is_a_character(tmp_path: Path, expected: dict[str, pa.Table]) -> None:
    """Inches: a reader that takes them for quotes would swallow what lies between two of them."""
    titles = np.array(['5" tv', "b", '6" tv', 'x "y" z'])
    log = a_log()
    log["title"] = titles[np.arange(len(log)) % 4]
    lines = ["user\ttitle\titem\ttime"] + [f"{u}\t{title}\t{i}\t{t}" for u, i, t, title in log.itertuples(index=False)]
    (tmp_path / "raw.tsv").write_text("\n".join(lines) + "\n")
    assert prepare(tmp_path / "raw.tsv", tmp_path / "out")["rows"] == len(log)
    assert parts(tmp_path / "out") == expected


def test_a_quoted_empty_field_is_empty(tmp_path: Path) -> None:
    log = a_log().astype(str)
    log.loc[[3, 700], "item"] = ""
    log.loc[[4], "user"] = ""
    quoted = "".join(",".join(f'"{value}"' for value in row) + "\n" for row in log.itertuples(index=False))
    (tmp_path / "raw.csv").write_text("user,item,time\n" + quoted)
    account = prepare(tmp_path / "raw.csv", tmp_path / "out")
    assert (account["dropped"]["no_item"], account["dropped"]["no_user"]) == (2, 1)


def test_what_other_events_hold_decides_nothing_about_items(tmp_path: Path, expected: dict[str, pa.Table]) -> None:
    log = a_log().astype(object).assign(event="view")
    searches = log[::100].assign(event="search", item="red shoes")
    mixed = pd.concat([log, searches]).sort_values("time", kind="stable")
    prepare(written(mixed, tmp_path, "csv"), tmp_path / "out", "--keep_after_cut", "event=view")
    assert parts(tmp_path / "out") == expected


def test_pieces_of_a_file_are_one_log(
    tmp_path: Path, expected: dict[str, pa.Table], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Read 100 rows at a time: smaller ids come later, a wrong row is named by its place in the file."""
    monkeypatch.setattr(raw, "_BATCH_ROWS", 100)
    monkeypatch.setattr(steps, "_BLOCK", 64)
    monkeypatch.setattr(write, "_ROWS_AT_ONCE", 100)
    log = a_log()
    assert log["user"][:100].min() < log["user"].max()
    prepare(written(log, tmp_path, "csv"), tmp_path / "out")
    assert parts(tmp_path / "out") == expected
    shifted = log.assign(user=log["user"].where(log.index < 200, log["user"] - 1_000))
    prepare(written(shifted, tmp_path, "tsv"), tmp_path / "shifted")
    ids = pd.factorize(shifted["user"], sort=True)[0]
    prepare(written(shifted.assign(user=ids), tmp_path, "dat"), tmp_path / "dense")
    assert parts(tmp_path / "shifted") == parts(tmp_path / "dense")
    wrong = log.astype(object)
    wrong.loc[731, "time"] = "noon"
    path = written(wrong, tmp_path, "txt")
    keys = ["--user_key", "user", "--item_key", "item", "--time_key", "time"]
    assert main(["prepare", str(path), "-o", str(tmp_path / "wrong"), *keys]) == 2
    assert "time is 'noon' in row 732 of " in capsys.readouterr().err


def test_counts_say_when_a_part_begins_and_ends(tmp_path: Path) -> None:
    account = prepare(written(a_log(), tmp_path, "csv"), tmp_path / "out")
    for name, table in parts(tmp_path / "out").items():
        times = pd.to_datetime(table["Time"].to_pandas(), unit="s")
        counts = account["windows"][0]["parts"][name]
        assert counts["first"] == times.min().strftime("%Y-%m-%d %H:%M:%S")
        assert counts["last"] == times.max().strftime("%Y-%m-%d %H:%M:%S")
        assert counts["items"] == len(set(table["ItemId"].to_pylist()))


def test_separator_and_date_are_taken_as_they_are_written(tmp_path: Path) -> None:
    log = a_log().rename(columns={"time": "when,exactly"})
    log.to_csv(tmp_path / "raw.txt", index=False, sep="\t")
    keys = ["--user_key", "user", "--item_key", "item", "--time_key", "when,exactly", "--separator", "TAB"]
    keys += ["--test_from", "2020-09-21T02:00:00+02:00"]
    assert main(["prepare", str(tmp_path / "raw.txt"), "-o", str(tmp_path / "out"), "--quiet", *keys]) == 0
    assert json.loads((tmp_path / "out" / "stats.json").read_text())["windows"][0]["test_from"] == START + 8 * 86_400


def test_the_cut_in_the_account_is_never_below_the_true_one(tmp_path: Path) -> None:
    log = a_log()
    log["time"] = pd.to_datetime(log["time"], unit="s").dt.strftime("%Y-%m-%dT%H:%M:%SZ")
    raw_log = written(log, tmp_path, "csv")
    keys = ["--user_key", "user", "--item_key", "item", "--time_key", "time", "--test_from", "2020-09-21T00:00:00.5"]
    assert main(["prepare", str(raw_log), "-o", str(tmp_path / "out"), "--quiet", *keys]) == 0
    assert (
        json.loads((tmp_path / "out" / "stats.json").read_text())["windows"][0]["test_from"] == START + 8 * 86_400 + 0.5
    )
