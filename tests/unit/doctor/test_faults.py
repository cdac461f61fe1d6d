"""One fault is planted in a clean log: the doctor names it, and nothing else. The clean log has neither."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from unit.doctor.planted import Rows, clean, examined, in_time_order, joined, message, names, session, split, taken

from gru4rec.data.files import Columns
from gru4rec.data.simulate import DAY_S, START_S
from gru4rec.data.simulated_logs import shuffle_items
from gru4rec.doctor.examine import examine
from gru4rec.doctor.sequence import judge
from gru4rec.doctor.text import number_lines

YEAR_S = 365 * DAY_S


# --- the clean log


@pytest.mark.parametrize("seed", range(6))
def test_clean_log_has_no_error_and_no_warning(seed: int) -> None:
    train, test = split(clean(seed))
    report = examined(train, test)
    assert names(report) == set()
    assert report.is_clean
    assert names(report, ["note"]) <= {"rare-items", "single-event-sessions", "cold-test-items"}


@pytest.mark.parametrize(
    "size",
    [
        {"n_sessions": 600, "n_items": 60, "n_categories": 6},
        {"n_sessions": 1_500, "days": 3},
        {"n_sessions": 20_000, "n_items": 1_500, "n_categories": 40, "days": 28, "drift": 0.8},  # the shop's defaults
        {"mean_session_length": 3.0},
        {"mean_session_length": 15.0, "max_session_length": 60},
        {"days": 200},
    ],
)
@pytest.mark.parametrize("seed", [1, 2])
def test_clean_log_of_other_sizes_has_no_error_and_no_warning(size: dict[str, float], seed: int) -> None:
    assert names(examined(clean(seed, **size))) == set()


def test_clean_log_of_the_size_of_a_toy_has_no_error_and_no_warning() -> None:
    assert names(examined(clean(n_sessions=30, n_items=20, n_categories=4, days=2))) <= {"rare-items"}


def test_clean_log_in_milliseconds_or_as_floats_is_clean() -> None:
    rows = clean()
    for time, unit in ((rows["Time"] * 1_000 + 7, "ms"), (rows["Time"] + 0.25, "s"), (rows["Time"] * 10**9, "ns")):
        report = examined(rows | {"Time": time})
        assert names(report) == set()
        assert report.numbers["clock"]["unit"] == unit
        assert report.numbers["gaps"]["gap_s"]["median"] == pytest.approx(45, rel=0.1)  # the shop's median gap


# --- sequence


def test_shuffled_order_is_not_sequential() -> None:
    rows = clean()
    code = np.unique(rows["SessionId"], return_inverse=True)[1]
    order = np.lexsort((rows["Time"], code))
    mixed = np.lexsort((np.random.default_rng(0).random(len(code)), code))
    item = np.empty_like(rows["ItemId"])
    item[order] = rows["ItemId"][mixed]
    report = examined(rows | {"ItemId": item})
    assert names(report) == {"not-sequential"}
    assert "co-occurrence" in message(report, "not-sequential")


def test_items_mixed_across_sessions_are_not_sequential() -> None:
    rows = clean()
    assert "not-sequential" in names(examined(rows | {"ItemId": shuffle_items(rows["ItemId"], seed=1)}))


@pytest.mark.parametrize(
    ("markov", "shuffled", "popularity", "n_targets", "found"),
    [
        (0.023, 0.021, 0.032, 11_230, "not-sequential"),  # bol, its items permuted
        (0.023, 0.021, 0.01, 11_230, "not-sequential"),
        (0.20, 0.10, 0.25, 11_230, "not-sequential"),
        (0.025, 0.021, 0.032, 400, "sequence-unknown"),
        (0.341, 0.255, 0.05, 11_230, None),
    ],
)
def test_many_cases_without_order_are_a_warning_and_only_few_are_unsure(
    markov: float, shuffled: float, popularity: float, n_targets: int, found: str | None
) -> None:
    error = float(np.hypot(*(np.sqrt(p * (1 - p) / n_targets) for p in (markov, shuffled))))
    numbers = {
        "k": 20, "recall_markov": markov, "recall_shuffled": shuffled, "recall_popularity": popularity,
        "n_targets": n_targets, "standard_error_of_difference": error,
    }  # fmt: skip
    assert [finding.name for finding in judge(numbers)] == ([found] if found else [])
    assert all(f"are right in {100 * popularity:.2g} %" in finding.message for finding in judge(numbers))
    assert all("the most popular item is right" in finding.message for finding in judge(numbers | {"k": 1}))


# --- leaks


def test_leaked_session_is_named_even_if_it_is_one() -> None:
    train, test = split(clean())
    leaked = taken(test, test["SessionId"] == test["SessionId"][0])
    report = examined(joined(train, leaked), test)
    assert names(report) == {"shared-sessions", "copied-sessions"}
    one = str(test["SessionId"][0])
    assert "1 session of" in message(report, "shared-sessions")
    assert f"has an id that stands in the training log, such as {one}" in message(report, "shared-sessions")
    assert "stands in the training log, with" in message(report, "copied-sessions")
    assert f"session {one}." in message(report, "copied-sessions")
    assert report.numbers["leaks"]["n_shared_session_ids"] == report.numbers["leaks"]["n_copied_sessions"] == 1


def test_leaked_session_under_another_id_is_found_by_its_content() -> None:
    train, test = split(clean())
    leaked = taken(test, test["SessionId"] == test["SessionId"][0])
    report = examined(joined(train, leaked | {"SessionId": leaked["SessionId"] * 0 + 3}), test)
    assert names(report) == {"copied-sessions"}


def test_shared_ids_that_are_integers_here_and_text_there_are_found() -> None:
    train, test = split(clean())
    test["SessionId"][test["SessionId"] == test["SessionId"][0]] = train["SessionId"][0]
    text = test | {"SessionId": test["SessionId"].astype(str)}
    report = examined(train, text)
    assert report.numbers["leaks"]["n_shared_session_ids"] == 1
    assert names(report) == {"shared-sessions"}


def test_sessions_that_repeat_paths_at_other_times_are_a_warning() -> None:
    train, _ = split(clean())
    late = train | {"SessionId": train["SessionId"] + 10**9, "Time": train["Time"] + 30 * DAY_S}
    assert names(examined(train, late)) == {"repeated-paths"}


def test_random_split_puts_test_events_before_the_end_of_training() -> None:
    rows = clean()
    late = np.random.default_rng(0).random(rows["SessionId"].max() + 1)[rows["SessionId"]] < 0.2
    report = examined(taken(rows, ~late), taken(rows, late))
    assert names(report) == {"test-before-train-end"}
    assert names(report, ["error"]) == {"test-before-train-end"}  # almost all of the test events


def test_cold_items_of_a_test_log_are_counted() -> None:
    train, test = split(clean())
    new = np.random.default_rng(0).random(len(test["Time"])) < 0.3
    test["ItemId"][new] += 10**8
    report = examined(train, test)
    assert names(report) == {"cold-test-items"}
    assert report.numbers["leaks"]["cold_test_events_frac"] == pytest.approx(new.mean())


def test_sessions_of_the_same_items_in_another_order_repeat_no_path() -> None:
    train, _ = split(clean())
    order = np.lexsort((train["Time"], train["SessionId"]))
    back = np.lexsort((-train["Time"], train["SessionId"]))
    late = taken(train, order) | {"ItemId": train["ItemId"][back]}
    late |= {"SessionId": late["SessionId"] + 10**9, "Time": late["Time"] + 30 * DAY_S}
    assert names(examined(train, late)) == set()


def test_few_test_events_before_the_end_of_training_are_a_note() -> None:
    rows = clean()
    train, test = split(rows)
    late = one_in(8, train) & np.isin(
        train["SessionId"], train["SessionId"][train["Time"] > test["Time"].min() - DAY_S]
    )
    report = examined(taken(train, ~late), in_time_order(joined(test, taken(train, late))))
    assert names(report) == set()
    assert 0 < report.numbers["leaks"]["test_events_before_end_frac"] < 0.05
    assert "test-before-train-end" in names(report, ["note"])


def test_sessions_from_weeks_before_the_cut_are_no_open_ones() -> None:
    train, test = split(clean())
    moved = one_in(150, train)
    early = taken(train, moved)
    report = examined(taken(train, ~moved), in_time_order(joined(test, early)))
    assert report.numbers["leaks"]["test_events_before_end_frac"] < 0.05
    assert names(report) == {"test-before-train-end", "test-hole-in-time"}
    said = message(report, "test-before-train-end")
    assert "no harm" not in said
    assert re.search("by up to 1[56][.0-9]* days: session", said)
    assert f"session {early['SessionId'][np.argmin(early['Time'])]} has one at 2026-01-0" in said


def test_one_session_from_weeks_before_the_cut_is_no_open_one() -> None:
    train, test = split(clean())
    moved = train["SessionId"] == in_time_order(train)["SessionId"][200]
    assert "test-before-train-end" in names(examined(taken(train, ~moved), joined(test, taken(train, moved))))


def test_wrong_clock_of_a_test_event_is_told_once() -> None:
    train, test = split(clean())
    test["Time"][5] = 0
    assert names(examined(train, test)) == {"test-far-away-times"}


def test_other_unit_in_the_test_log_is_said() -> None:
    train, test = split(clean())
    assert names(examined(train, test | {"Time": test["Time"] * 1_000})) == {"other-time-unit"}


def test_faults_of_the_test_log_itself_are_named() -> None:
    train, test = split(clean())
    assert names(examined(train, joined(test, test))) == {"test-duplicated-file"}
    seconds = test["Time"].copy()
    test["Time"][:50] *= 1_000
    assert names(examined(train, test)) == {"test-mixed-time-units"}
    assert names(examined(train, test | {"Time": seconds})) == set()


def test_end_of_training_is_not_moved_by_wrong_clocks() -> None:
    train, test = split(clean())
    train["Time"][::50] *= 1_000
    assert names(examined(train, test)) == {"mixed-time-units"}


# --- programs


@pytest.mark.parametrize(
    ("n", "gaps_s", "kind"),
    [(900, 40.0, "too_long"), (60, 0.4, "too_fast"), (60, 5.0, "too_regular")],
)
def test_bot_is_found_by_length_speed_or_regularity(n: int, gaps_s: float, kind: str) -> None:
    rows = clean()
    items = np.resize(np.unique(rows["ItemId"]), n)
    bots = [session(n, gaps_s, items) | {"SessionId": np.full(n, i)} for i in (1, 2, 3)]
    report = examined(in_time_order(joined(rows, *bots)))
    assert names(report) == {"bot-like-sessions"}
    assert report.numbers["bots"][f"n_{kind}"] == 3
    assert "session 1 with" in message(report, "bot-like-sessions")


def test_one_small_bot_in_a_large_log_is_a_note() -> None:
    rows = clean(n_sessions=20_000)
    report = examined(in_time_order(joined(rows, session(20, 5.0, np.unique(rows["ItemId"])))))
    assert names(report) == set()
    assert "bot-like-sessions" in names(report, ["note"])


# --- clocks


def with_time(rows: Rows, change: np.ndarray, time: np.ndarray | float) -> Rows:
    new = rows["Time"].copy()
    new[change] = np.broadcast_to(time, len(new))[change]
    return rows | {"Time": new}


def one_in(n: int, rows: Rows) -> np.ndarray:
    """Say for each row whether its session is one of a random n-th."""
    return np.random.default_rng(0).random(rows["SessionId"].max() + 1)[rows["SessionId"]] < 1 / n


@pytest.mark.parametrize("jump_s", [-20 * YEAR_S, -2 * YEAR_S, 5 * YEAR_S, 30 * YEAR_S])
@pytest.mark.parametrize("share", [1_000, 200, 15])
def test_clock_jump_is_found_whether_few_events_or_many_took_it(jump_s: int, share: int) -> None:
    rows = clean()
    jumped = one_in(share, rows)
    report = examined(with_time(rows, jumped, rows["Time"] + jump_s))
    assert names(report) & {"far-away-times", "hole-in-time"}
    assert names(report) <= {"far-away-times", "hole-in-time", "volume-jump"}


@pytest.mark.parametrize("share", [500, 15])
def test_events_of_1970_are_found(share: int) -> None:
    rows = clean()
    assert names(examined(with_time(rows, one_in(share, rows), 0))) & {"far-away-times", "hole-in-time"}


def test_far_future_is_found_with_its_date_and_row() -> None:
    rows = clean()
    row = len(rows["Time"]) // 2
    rows["Time"][row] = 4_000_000_000  # 2096
    report = examined(rows)
    assert names(report) == {"far-away-times"}
    assert "2096-10-02" in message(report, "far-away-times")
    assert f"first in row {row + 1:,}" in message(report, "far-away-times")


def test_missing_week_is_a_hole() -> None:
    rows = clean()
    day = (rows["Time"] - START_S) // DAY_S
    report = examined(taken(rows, (day < 8) | (day >= 15)))
    assert names(report) == {"hole-in-time"}
    assert "7 days" in message(report, "hole-in-time")


@pytest.mark.parametrize("share", [2, 10, 2_000])
def test_milliseconds_among_seconds_are_an_error(share: int) -> None:
    rows = clean()
    changed = one_in(share, rows)
    assert changed.any()
    report = examined(with_time(rows, changed, rows["Time"] * 1_000))
    assert names(report) == {"mixed-time-units"}
    assert f"{min(changed.sum(), (~changed).sum()):,} like" in message(report, "mixed-time-units")
    n_kept, unit = max((changed.sum(), "s"), ((~changed).sum(), "ms"))
    events = dict(number_lines(report))["events"]
    assert events.startswith(f"{n_kept:,} of {len(changed):,} (rows in {unit} are left out")


def test_rows_that_are_left_out_are_counted_in_the_line_of_events() -> None:
    rows = clean()
    assert dict(number_lines(examined(rows)))["events"].startswith(f"{len(rows['Time']):,} in ")
    again = joined(rows, taken(rows, np.arange(0, len(rows["Time"]), 20)))
    again["Time"][1] = 0
    events = dict(number_lines(examined(again)))["events"]
    assert events.startswith(f"{len(rows['Time']) - 1:,} of {len(again['Time']):,} (copies of other rows and far-away")


def test_clock_set_back_in_a_file_in_time_order_is_found() -> None:
    rows = clean()
    at = len(rows["Time"]) // 2
    time = rows["Time"].copy()
    time[at:] -= 3 * 3_600
    report = examined(rows | {"Time": time})
    assert names(report) == {"time-runs-backwards"}
    assert f"row {at + 1:,})" in message(report, "time-runs-backwards")


def test_file_in_session_order_does_not_run_backwards() -> None:
    rows = clean()
    report = examined(taken(rows, np.lexsort((rows["Time"], rows["SessionId"]))))
    assert "time-runs-backwards" not in names(report, ["error", "warning", "note"])


def test_file_that_lists_few_long_sessions_one_after_the_other_does_not_run_backwards() -> None:
    rows = clean()
    rows["SessionId"] %= 100  # time falls at 99 of 24,000 rows, far fewer than in a file in no order
    report = examined(taken(rows, np.lexsort((rows["Time"], rows["SessionId"]))))
    assert "time-runs-backwards" not in names(report, ["error", "warning", "note"])


def test_all_times_equal_is_a_warning() -> None:
    rows = clean()
    report = examined(rows | {"Time": np.full(len(rows["Time"]), START_S)})
    assert names(report) == {"all-times-equal"}


def test_dates_without_hours_tie_neighbours() -> None:
    rows = clean()
    order = np.lexsort((rows["Time"], rows["SessionId"]))
    rows = taken(rows, order)
    assert names(examined(rows | {"Time": rows["Time"] // DAY_S * DAY_S})) == {"tied-times"}


def test_order_only_times_are_a_note_and_nothing_is_said_about_days() -> None:
    rows = clean()
    order = np.lexsort((rows["Time"], rows["SessionId"]))
    rows = taken(rows, order)
    report = examined(rows | {"Time": np.arange(len(order))})
    assert names(report) == set()
    assert "mere order" in message(report, "order-only-times")
    assert report.numbers["gaps"] == {"gap_s": {}}
    assert report.numbers["shape"]["events_per_day"] == {}


# --- sessions, items, copies


def test_user_column_as_session_column_is_found_with_a_cut_between_the_hills() -> None:
    rows = clean()
    report = examined(rows | {"SessionId": rows["SessionId"] % 397})
    assert names(report) == {"sessions-span-visits"}
    cut = report.numbers["gaps"]["suggested_cut"]
    assert (
        f"`gru4rec prepare LOG -o DIR --user_key SessionId --item_key ItemId --time_key Time --gap {cut}`"
        in message(report, "sessions-span-visits")
    )
    assert f"suggested session cut {cut}" in dict(number_lines(report))["gaps"]
    assert 1_800 <= report.numbers["gaps"]["suggested_cut_s"] <= 6 * 3_600  # the shop's own gaps end at half an hour


def test_advice_to_cut_names_the_log_and_its_columns(tmp_path: Path) -> None:
    rows = clean()
    table = {"visitor id": rows["SessionId"] % 397, "sku": rows["ItemId"], "at": rows["Time"]}
    path = tmp_path / "my log.tsv"
    lines = ["\t".join(table), *("\t".join(map(str, row)) for row in zip(*table.values(), strict=True))]
    path.write_text("\n".join(lines) + "\n")
    report = examine(path, columns=Columns("visitor id", "sku", "at"), timing=False)
    command = f"prepare '{path}' -o DIR --user_key 'visitor id' --item_key sku --time_key at --gap "
    assert command in message(report, "sessions-span-visits")


def test_sessions_that_span_no_visits_need_no_cut() -> None:
    report = examined(clean())
    assert dict(number_lines(report))["gaps"].endswith("; no cut needed")
    assert report.numbers["gaps"]["suggested_cut"] is None


def test_gaps_that_are_nearly_all_0_are_not_described() -> None:
    rows = clean()
    rows = taken(rows, np.lexsort((rows["Time"], rows["SessionId"])))
    report = examined(rows | {"Time": rows["Time"] // 3_600 * 3_600})
    assert report.numbers["clock"]["equal_neighbour_times_frac"] > 0.9
    assert "gaps" not in dict(number_lines(report))
    assert "gap_histogram" not in report.curves


def test_file_written_twice_is_an_error_and_told_once() -> None:
    rows = clean()
    report = examined(joined(rows, rows))
    assert names(report) == {"duplicated-file"}
    assert "every row stands 2 times" in message(report, "duplicated-file")
    assert report.numbers["shape"]["n_events"] == len(rows["Time"])  # the other checks see each row once


def test_file_whose_rows_stand_thrice_in_a_row_is_an_error() -> None:
    rows = clean()
    report = examined(taken(rows, np.repeat(np.arange(len(rows["Time"])), 3)))
    assert names(report) == {"duplicated-file"}
    assert "3 times" in message(report, "duplicated-file")


def test_some_identical_rows_are_counted() -> None:
    rows = clean()
    again = np.arange(0, len(rows["Time"]), 20)
    report = examined(taken(rows, np.sort(np.r_[np.arange(len(rows["Time"])), again])))
    assert names(report) == {"identical-rows"}
    assert f"{len(again):,} rows" in message(report, "identical-rows")
    assert report.numbers["shape"]["n_consecutive_repeats"] == 0  # a copied row is no repeat


def test_consecutive_repeats_are_counted() -> None:
    rows = clean()
    again = np.arange(0, len(rows["Time"]), 4)
    repeats = taken(rows, again)
    report = examined(in_time_order(joined(rows, repeats | {"Time": repeats["Time"] + 1})))
    assert names(report) == {"consecutive-repeats"}
    assert report.numbers["shape"]["n_consecutive_repeats"] >= 0.9 * len(again)  # some gaps are of one second
    share = re.search(r"\(([\d.]+ %) of those to predict\)", message(report, "consecutive-repeats"))
    assert share is not None
    assert dict(number_lines(report))["repeats"] == f"{share[1]} of events to predict repeat the item just before"


@pytest.mark.parametrize("name", ["consecutive-repeats", "rare-items"])
def test_advice_is_true_of_a_log_that_prepare_wrote(name: str) -> None:
    rows = clean()
    rows["ItemId"][0], rows["ItemId"][rows["SessionId"] == rows["SessionId"][1]] = 1, 2
    said = message(examined(rows), name)
    assert "(gru4rec prepare does)" not in said
    assert re.search("afterwards can bring equal items|rare items of its own", said)


def test_session_column_that_numbers_events_is_found() -> None:
    rows = clean()
    alone = np.arange(len(rows["Time"])) >= 400
    rows["SessionId"][alone] = 10**9 + np.flatnonzero(alone)
    assert "single-event-sessions" in names(examined(rows))


def test_rare_items_weigh() -> None:
    rows = clean()
    rare = np.random.default_rng(0).random(len(rows["Time"])) < 0.4
    rows["ItemId"][rare] = 10**9 + np.flatnonzero(rare)
    assert "rare-items" in names(examined(rows))


# --- drift


def test_catalogue_replaced_halfway_drifts() -> None:
    rows = clean()
    rows["ItemId"][rows["Time"] >= START_S + 12 * DAY_S] += 10**8
    report = examined(rows)
    assert names(report) == {"popularity-drift"}
    assert report.numbers["drift"]["popularity_drift"] > 0.95


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("n_sessions", [500, 4_000])
def test_stationary_log_has_no_drift_whatever_its_size(seed: int, n_sessions: int) -> None:
    report = examined(clean(seed, n_sessions=n_sessions))
    assert abs(report.numbers["drift"]["popularity_drift"]) < 0.05
    assert "popularity-drift" not in names(report, ["note"])


def test_items_that_begin_in_the_last_tenth_are_cold() -> None:
    rows = clean()
    rows["ItemId"][rows["Time"] >= START_S + 18.5 * DAY_S] += 10**8
    assert "cold-items" in names(examined(rows))


@pytest.mark.parametrize("seed", range(3))
def test_few_events_a_day_do_not_jump(seed: int) -> None:
    assert "volume-jump" not in names(examined(clean(seed, n_sessions=90, days=60)))


@pytest.mark.parametrize("seed", range(4))
def test_days_of_20_events_that_differ_by_chance_do_not_jump(seed: int) -> None:
    assert "volume-jump" not in names(examined(clean(seed, n_sessions=800, days=200)))


def test_counts_of_one_have_no_plural() -> None:
    rows = {"SessionId": np.array([1, 1, 1]), "ItemId": np.array([4, 5, 4]), "Time": START_S + np.arange(3)}
    lines = dict(number_lines(examined(rows, rows | {"SessionId": rows["SessionId"] + 1})))
    assert lines["events"] == "3 in 1 session, 2 items"
    assert lines["test"].startswith("3 events in 1 session,")


def test_source_switched_on_halfway_is_a_jump_of_volume() -> None:
    rows = clean()
    few = one_in(5, rows) | (rows["Time"] >= START_S + 11 * DAY_S)
    report = examined(taken(rows, few))
    assert names(report) == {"volume-jump"}
    assert "2026-01-1" in message(report, "volume-jump")
