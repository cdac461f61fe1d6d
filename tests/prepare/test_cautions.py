"""Cautions: each sign is told of a log that has it, and of no other."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
from prepare.test_reading import a_log, parts, prepare, written

START = 1_599_955_200


def clean() -> pd.DataFrame:
    """Visits of 200 users in ten days, a minute between clicks."""
    rows = [
        (f"u{user:03d}", f"i{(user * 7 + click) % 11}", START + day * 86_400 + user * 60 + click * 61)
        for day in range(10)
        for user in range(200)
        for click in range(4)
        if (user + day) % 3
    ]
    return pd.DataFrame(rows, columns=["user", "item", "time"])


def with_word(column: str) -> Callable[[pd.DataFrame], pd.DataFrame]:
    return lambda log: log.assign(**{column: log[column].where(log.index % 50 != 7, "null")})


def everybody(log: pd.DataFrame) -> pd.DataFrame:
    return log.assign(user=log["user"].where(log.index % 10 != 0, "guest"))


def without_a_pause(log: pd.DataFrame) -> pd.DataFrame:
    """Some users click every 48 minutes for ten days, beside the others."""
    rows = [(f"b{n}", f"i{k % 11}", START + n + k * 2_880) for n in range(99) for k in range(300)]
    return pd.concat([log, pd.DataFrame(rows, columns=log.columns)])


SIGNS: dict[str, tuple[Callable[[pd.DataFrame], pd.DataFrame], str]] = {
    "word for no item": (with_word("item"), "rows have item 'null', which looks like a missing id"),
    "word for no user": (with_word("user"), "rows have user 'null', which looks like a missing id"),
    "one user is everybody": (everybody, "user 'guest' has 10% of all rows"),
    "dates for times": (
        lambda log: log.assign(time=log["time"] // 86_400 * 86_400),
        "100% of neighbouring events in a session share their time",
    ),
    "a file twice": (lambda log: pd.concat([log, log]), "rows are the same as another one in session, item and time"),
    "cut through sessions": (without_a_pause, "the cut goes through many sessions"),
}


def cautions(log: pd.DataFrame, folder: Path) -> list[str]:
    account = prepare(written(log, folder, "csv"), folder / "out", "--min_item_support", "1")
    found: list[str] = account["cautions"]
    summary = (folder / "out" / "summary.txt").read_text()
    assert all(f"caution: {caution}\n" in summary for caution in found)
    return found


def test_a_clean_log_has_none(tmp_path: Path) -> None:
    assert cautions(clean(), tmp_path) == []


@pytest.mark.parametrize("sign", SIGNS)
def test_sign_is_told(sign: str, tmp_path: Path) -> None:
    change, message = SIGNS[sign]
    found = cautions(change(clean()), tmp_path)
    assert any(message in caution for caution in found), found
    others = {text for name, (_, text) in SIGNS.items() if name != sign}
    assert not [caution for caution in found if any(text in caution for text in others)]


def test_a_small_test_is_told(tmp_path: Path) -> None:
    log = clean()
    found = cautions(log[log["user"] < "u020"], tmp_path)
    assert len(found) == 1
    assert found[0].startswith("the test has ")


def test_missing_leaves_words_out_and_counts_them(tmp_path: Path) -> None:
    log = clean()
    wordy = log.assign(
        item=log["item"].where(log.index % 50 != 7, "null"), user=log["user"].where(log.index % 60 != 0, "NA")
    )
    raw = written(wordy, tmp_path, "csv")
    account = prepare(raw, tmp_path / "out", "--min_item_support", "1", "--missing", "NA,null")
    assert account["cautions"] == []
    n_no_user = int((wordy["user"] == "NA").sum())
    n_no_item = int(((wordy["user"] != "NA") & (wordy["item"] == "null")).sum())
    assert (account["dropped"]["no_user"], account["dropped"]["no_item"]) == (n_no_user, n_no_item)
    left = wordy[(wordy["user"] != "NA") & (wordy["item"] != "null")]
    prepare(written(left, tmp_path, "tsv"), tmp_path / "left", "--min_item_support", "1")
    assert parts(tmp_path / "out") == parts(tmp_path / "left")


def test_flags_may_be_written_with_hyphens(tmp_path: Path) -> None:
    raw = written(a_log(), tmp_path, "csv")
    one = prepare(raw, tmp_path / "one", "--min_item_support", "3", "--keep_repeats", "--train_days", "3")
    two = prepare(raw, tmp_path / "two", "--min-item-support", "3", "--keep-repeats", "--train-days", "3d")
    assert {**one, "seconds": 0} == {**two, "seconds": 0}


def test_dates_with_milliseconds_from_midnight_are_times(tmp_path: Path) -> None:
    """As DIGINETICA has them, here with flags of one's own."""
    log = a_log()
    split = log.assign(
        day=pd.to_datetime(log["time"], unit="s").dt.strftime("%Y-%m-%d"), time=log["time"] % 86_400 * 1_000
    )
    split["user"] = split["user"].astype(str) + "on" + split["day"]  # a session has one date
    log["user"], log["time"] = split["user"], log["time"] * 1_000
    prepare(written(split, tmp_path, "csv"), tmp_path / "out", "--date_key", "day")
    prepare(written(log, tmp_path, "tsv"), tmp_path / "plain")
    assert parts(tmp_path / "out") == parts(tmp_path / "plain")


def test_every_file_is_listed_with_its_rows(tmp_path: Path) -> None:
    log = a_log()
    log[:700].to_csv(tmp_path / "a.csv", index=False)
    log[700:].to_csv(tmp_path / "b (1).csv", index=False)
    account = prepare(tmp_path / "*.csv", tmp_path / "out")
    assert [file["rows"] for file in account["files"]] == [700, len(log) - 700]
    summary = (tmp_path / "out" / "summary.txt").read_text()
    assert f"500 rows of {tmp_path}/b (1).csv\n" in summary
