"""What must hold for any log: nothing leaks, nothing is lost without a reason, filters leave what they promise."""

from __future__ import annotations

import json
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow.parquet as papq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gru4rec.cli.main import main

DAY = 86_400
START = 1_600_000_000 - 1_600_000_000 % DAY

Rows = list[tuple[int, int, int]]


@st.composite
def click_logs(draw: st.DrawFn) -> Rows:
    """Rows of user, item, second over ten days, dense enough that sessions repeat, cross cuts and lose events.

    No visit runs past midnight of the last day, which is the test then.
    """
    visits = draw(
        st.lists(st.tuples(st.integers(1, 6), st.integers(0, 9), st.integers(0, 17)), min_size=30, max_size=60)
    )
    rows = [(9, item, START + day * DAY) for day in range(10) for item in range(1, 10)]  # each part has something
    for user, day, hour in visits:
        time = START + day * DAY + hour * 3_600
        for item, pause in draw(
            st.lists(st.tuples(st.integers(1, 9), st.sampled_from([0, 60, 3_599, 3_600, 3_601])), max_size=5)
        ):
            rows.append((user, item, time))
            time += pause
    return draw(st.permutations(rows))


def prepared(
    rows: Rows, *flags: str, group: str = "user", test: str = "--test_days 2"
) -> tuple[dict[str, Any], dict[str, Rows]]:
    """Prepare rows with the command; return the account and the rows of every file."""
    with tempfile.TemporaryDirectory() as name:
        raw, out = Path(name) / "raw.csv", Path(name) / "out"
        raw.write_text("who,item,when\n" + "".join(f"{a},{b},{c}\n" for a, b, c in rows))
        keys = [f"--{group}_key", "who", "--item_key", "item", "--time_key", "when"]
        assert main(["prepare", str(raw), "-o", str(out), "--quiet", *keys, *test.split(), *flags]) == 0
        account = json.loads((out / "stats.json").read_text())
        files = {str(path.relative_to(out).with_suffix("")): path for path in sorted(out.rglob("*.parquet"))}
        return account, {
            name: list(zip(*papq.read_table(path).to_pydict().values(), strict=True)) for name, path in files.items()
        }


def check_parts(early: Rows, late: Rows, cut: float, *, cold_dropped: bool = True) -> None:
    assert not {row[0] for row in early} & {row[0] for row in late}, "a session is in both"
    assert max(row[2] for row in early) < cut <= min(row[2] for row in late)
    assert min(Counter(row[0] for row in early).values()) >= 2
    if cold_dropped:
        assert {row[1] for row in late} <= {row[1] for row in early}
        assert min(Counter(row[0] for row in late).values()) >= 2


@given(click_logs())
def test_split_by_start_leaks_nothing(rows: Rows) -> None:
    account, files = prepared(rows, "--min_item_support", "1")
    window = account["windows"][0]
    check_parts(files["train_full"], files["test"], window["test_from"])
    check_parts(files["train_tr"], files["train_valid"], window["valid_from"])
    assert set(files["train_tr"]) | set(files["train_valid"]) <= set(files["train_full"])


@given(click_logs())
def test_kept_cold_items_stay_in_the_test(rows: Rows) -> None:
    account, kept = prepared(rows, "--min_item_support", "1", "--cold_items", "keep")
    _, dropped = prepared(rows, "--min_item_support", "1")
    check_parts(kept["train_full"], kept["test"], account["windows"][0]["test_from"], cold_dropped=False)
    assert kept["train_full"] == dropped["train_full"]
    known = {row[1] for row in kept["train_full"]}
    warm = [row for row in kept["test"] if row[1] in known]
    lengths = Counter(row[0] for row in warm)
    assert [row for row in warm if lengths[row[0]] >= 2] == dropped["test"]


@given(click_logs())
def test_split_by_end_never_cuts_a_session(rows: Rows) -> None:
    account, files = prepared(rows, "--min_item_support", "1", "--split_by", "end", "--cold_items", "keep")
    whole: dict[int, list[tuple[int, int, int]]] = {}
    for row in files["train_full"] + files["test"]:
        whole.setdefault(row[0], []).append(row)
    cut = account["windows"][0]["test_from"]
    assert {session for session, events in whole.items() if events[-1][2] >= cut} == {row[0] for row in files["test"]}
    assert account["log"]["events"] == sum(map(len, whole.values()))


@given(
    click_logs(), st.sampled_from(["start", "end"]), st.sampled_from(["drop", "keep"]), st.integers(1, 3), st.booleans()
)
def test_every_row_is_accounted_for(rows: Rows, by: str, cold: str, n_windows: int, recent: bool) -> None:
    flags = ["--split_by", by, "--cold_items", cold, "--windows", str(n_windows), "--min_item_support", "2"]
    account, files = prepared(rows, *flags, *(["--train_days", "3"] if recent else []), test="--test_days 1")
    assert account["rows"] == len(rows) == sum(account["dropped"].values()) + account["log"]["events"]
    for number, window in enumerate(account["windows"], 1):
        counts = {name: part["events"] for name, part in window["parts"].items()}
        folder = f"window_{number}/" if n_windows > 1 else ""
        assert counts == {name: len(files[folder + name]) for name in counts}
        assert account["log"]["events"] == counts["train_full"] + counts["test"] + sum(window["dropped"].values())
        assert counts["train_full"] == counts["train_tr"] + counts["train_valid"] + sum(
            window["dropped_inside"].values()
        )


@given(click_logs(), st.integers(1, 3), st.integers(1, 8))
def test_filters_reach_the_largest_log_that_keeps_their_promise(rows: Rows, length: int, support: int) -> None:
    """Against a loop over Python lists; the order in which it drops does not matter for where it ends."""
    fixed = [(9, item, START + day * DAY + second) for day in range(10) for second, item in enumerate((1, 2, 3))]
    rows = [row for row in rows if row[0] != 9] + fixed
    account, _ = prepared(rows, "--min_session_length", str(length), "--min_item_support", str(support))
    assert account["log"]["events"] == len(slow_filter(slow_sessions(rows), length, support))


def slow_sessions(rows: Rows) -> Rows:
    """Cut at pauses above an hour, and drop repeats of the item just before."""
    events: Rows = []
    session, before = 0, None
    for user, item, time in sorted(rows, key=lambda row: (row[0], row[2], row[1])):
        if before is None or before[0] != user or time - before[2] > 3_600:
            session += 1
            before = None
        if before is None or before[1] != item:
            events.append((session, item, time))
        before = (user, item, time)
    return events


def slow_filter(events: Rows, length: int, support: int) -> Rows:
    while True:
        per_item, per_session = Counter(row[1] for row in events), Counter(row[0] for row in events)
        left = [row for row in events if per_item[row[1]] >= support and per_session[row[0]] >= length]
        if left == events:
            return events
        events = left


@given(click_logs())
def test_windows_are_the_splits_of_the_log_up_to_their_end(rows: Rows) -> None:
    """Window 2 tests the day before window 1's test day, and trains on what was before it."""
    account, files = prepared(rows, "--windows", "2", "--min_item_support", "1", test="--test_days 1")
    later, earlier = (window["test_from"] for window in account["windows"])
    assert later - earlier == DAY
    starts: dict[int, int] = {}
    for session, _, time in files["window_2/test"]:
        starts.setdefault(session, time)
    assert all(earlier <= start < later for start in starts.values())
    assert max(row[2] for row in files["window_2/train_full"]) < earlier
    lengths = Counter(row[0] for row in files["window_1/train_full"] if row[2] < earlier)
    began = {row[0] for row in files["window_1/train_full"] if row[2] < earlier}
    expected = [
        row for row in files["window_1/train_full"] if row[2] < earlier and row[0] in began and lengths[row[0]] > 1
    ]
    assert set(expected) <= set(files["window_2/train_full"])


@pytest.mark.parametrize("days", [2, 4])
def test_train_days_leaves_out_older_sessions(days: int) -> None:
    rows = [(user, item, START + day * DAY + user) for user in range(8) for day in range(10) for item in (1, 2, 3)]
    account, files = prepared(rows, "--train_days", str(days), test="--test_days 1")
    cut = account["windows"][0]["test_from"]
    assert min(row[2] for row in files["train_full"]) >= cut - days * DAY
    n_old = sum(time < cut - days * DAY for _, _, time in rows)
    assert account["windows"][0]["dropped"] == {"before_train_days": n_old}
    assert len(files["train_full"]) == sum(cut - days * DAY <= time < cut for _, _, time in rows)


def test_fraction_tests_the_last_sessions_to_start() -> None:
    rows = [(user, item, START + 600 * user + item) for user in range(100) for item in (1, 2, 3)]
    account, files = prepared(rows, test="--test_fraction 0.1")
    assert [row[0] for row in files["test"][::3]] == list(range(91, 101))  # sessions are numbered from 1
    assert [row[0] for row in files["train_valid"][::3]] == list(range(82, 91))  # a tenth of the other 90
    assert account["windows"][0]["test_from"] == START + 600 * 90 + 1


def test_date_tests_from_midnight_utc_and_validates_as_long_before() -> None:
    rows = [(user, item, START + user * DAY + item) for user in range(10) for item in (1, 2, 3)]
    account, files = prepared(rows, test="--test_from 2020-09-20")  # START is 2020-09-13
    assert [row[0] for row in files["test"][::3]] == [8, 9, 10]
    assert account["windows"][0]["test_from"] == START + 7 * DAY
    assert account["windows"][0]["valid_from"] == START + 5 * DAY - 3  # the test lasts two days and three seconds
    assert [row[0] for row in files["train_valid"][::3]] == [6, 7]


def test_session_ids_stay_and_a_gap_numbers_them_anew() -> None:
    rows = [(70 + user, item, START + user * DAY + 4_000 * item) for user in range(10) for item in (1, 2, 2, 3)]
    _, kept = prepared(rows, "--min_item_support", "1", group="session")
    assert {row[0] for row in kept["train_full"]} == set(range(70, 78))
    assert {row[0] for row in kept["test"]} == {78, 79}
    assert [row[1] for row in kept["test"]] == [1, 2, 3, 1, 2, 3]
    account, _ = prepared(rows, "--min_item_support", "1", "--gap", "2h", group="session")
    assert account["log"]["sessions"] == 10
    account, _ = prepared(
        rows, "--min_item_support", "1", "--gap", "1h", "--min_session_length", "1", "--keep_repeats", group="session"
    )
    assert account["log"]["sessions"] == 30  # 4,000 s apart: each item is a session, the two 2s are one
