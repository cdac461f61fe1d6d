"""A backtest: how a log is cut, what is measured, what is kept; and on the made-up shop, that updating follows it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from conftest import make_sessions
from doors import call
from update.literal import log_of, trained

import gru4rec.backtest.job
from gru4rec import GRU4Rec, Sessions, Vocabulary
from gru4rec.backtest.folder import taken
from gru4rec.backtest.job import summary_of
from gru4rec.backtest.measure import measure
from gru4rec.backtest.output import table_lines, verdict
from gru4rec.backtest.windows import cut_by_days, cut_by_sessions, new_items_of
from gru4rec.cli import main as door
from gru4rec.data.simulate import ShopSettings, simulate_shop
from gru4rec.data.simulated_logs import write_logs
from gru4rec.errors import ConfigError, DataError

SETTINGS = "layers=32,n_epochs=4,batch_size=16,learning_rate=0.15,n_sample=256,seed=3"


# --- how a log is cut ---


def ids_of(sessions: Sessions) -> list[list[Any]]:
    ids = sessions.items.ids_of(sessions.item_idx)
    return [ids[first:stop] for first, stop in zip(sessions.offsets[:-1], sessions.offsets[1:], strict=True)]


def test_parts_are_consecutive_and_number_their_own_items() -> None:
    lists = [[5, 6], [6, 7], [7, 5], [8, 6], [9, 8, 9], [5, 9], [8, 5]]
    parts = cut_by_sessions(log_of(lists), 3)
    assert [ids_of(parts.part(place)) for place in range(3)] == [lists[:2], lists[2:4], lists[4:]]
    assert ids_of(parts.up_to(2)) == lists[:4]
    assert parts.part(1).items.ids_of([0, 1, 2, 3]) == [7, 5, 8, 6]
    assert parts.up_to(1).items.ids_of([0, 1, 2]) == [5, 6, 7]
    new = [new_items_of(parts, place) for place in range(3)]
    assert [None if items is None else items.item_ids.to_pylist() for items in new] == [[5, 6, 7], [8], [9]]


def timed(days: list[float], ticks_per_day: float = 86_400_000) -> Sessions:
    sessions = make_sessions([[0, 1]] * len(days))
    start = (1.7e12 + np.array(days) * ticks_per_day).astype(np.int64)
    return Sessions(sessions.item_idx, sessions.offsets, start, sessions.items, "timed.tsv")


def test_parts_by_days_begin_with_the_first_session_and_leave_less_than_half_a_part_out() -> None:
    parts = cut_by_days(timed([0, 1.9, 2.0, 2.5, 2.9, 3.1, 4.2, 4.4]), 1.0, first_days=2.0)
    assert parts.cuts.tolist() == [0, 2, 5, 6]  # 0 to 2, to 3, to 4
    assert parts.rule == (
        "a first part of 2 days, then 2 of 1 day; the last 2 sessions are left out: 0.4 days is less than half of "
        "a part"
    )


def test_parts_by_days_keep_a_last_day_that_is_hardly_whole() -> None:
    for n_more, last in ((4, 3.95), (4, 3.5), (3, 3.4)):
        parts = cut_by_days(timed([*np.arange(0, 3, 0.25), 3.1, last]), 1.0, first_days=1.0)
        assert parts.cuts.tolist() == [0, 4, 8, 12, 14][: n_more + 1]
    parts = cut_by_days(timed([*np.arange(0, 3, 0.25), 3.1, 3.9]), 1.0, first_days=1.0)
    assert parts.rule == "4 parts of 1 day; sessions of the last part start in 0.9 days"


@pytest.mark.parametrize(
    ("cut", "error", "message"),
    [
        (lambda: cut_by_sessions(log_of([[0, 1]] * 9), 2), ConfigError, r"--parts 2: a backtest needs 3 parts"),
        (lambda: cut_by_sessions(log_of([[0, 1], [0], [0, 1]]), 3), DataError, r"part 2 of 3 of .* no session of two"),
        (lambda: cut_by_sessions(log_of([[0, 1], [0, 1]]), 3), DataError, r"part 1 of 3 of .* no session of two"),
        (lambda: cut_by_days(log_of([[0, 1]] * 9), 1.0, first_days=1.0), DataError, r"mere order.* Cut it .* --parts"),
        (lambda: cut_by_days(timed([0, 5]), 4.0, first_days=2.0), DataError, r"timed\.tsv spans 5 days, .* Make them"),
        (lambda: cut_by_days(timed([0, 5]), 0.0, first_days=2.0), ConfigError, r"--days 0 is no length of time"),
        (lambda: cut_by_days(timed([0, 5]), 1.0, first_days=-1.0), ConfigError, r"--first-days -1 is no length"),
    ],
)
def test_cuts_that_give_no_backtest_are_refused(cut: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        cut()


# --- what is measured ---

FOLLOWING = [[0, 1, 9], [9, 8], [9, 2, 9, 3], [7, 9, 0], [3, 1, 8, 0]]
"""For a model of 0, 1, 2, 3 and 9, of which 9 is new: 7 and 8 are unknown."""


def by_slow_loop(gru: GRU4Rec, new: set[int], k: int) -> dict[str, float]:
    """Rank every target by the model's own lists, as a visitor would see them."""
    known = set(gru.items.item_ids.to_pylist())
    found = {"n_targets": 0, "n_known": 0, "recall": 0.0, "mrr": 0.0, "new": 0, "new_hits": 0, "lists": 0, "places": 0}
    for events in FOLLOWING:
        for place in range(1, len(events)):
            target, before = events[place], [item for item in events[:place] if item in known]
            found["n_targets"] += 1
            found["new"] += target in new
            if target not in known or not before:
                continue  # a miss
            listed = gru.recommend(before, k=k).item_ids
            found["n_known"] += 1
            found["lists"] += any(item in new for item in listed)
            found["places"] += sum(item in new for item in listed)
            if target in listed:
                found["recall"] += 1
                found["mrr"] += 1 / (1 + listed.index(target))
                found["new_hits"] += target in new
    return found


@pytest.mark.parametrize("k", [1, 2, 4])
def test_measures_are_those_of_a_slow_loop(k: int) -> None:
    gru = trained([[0, 1, 2], [9, 3, 0], [1, 9, 2], [2, 9, 9, 3], [3, 1, 0]])
    following = log_of(FOLLOWING)
    found = measure(gru, following, Vocabulary([9, 7]), cutoffs=[k], ties="no_dedupe")
    loop, k = by_slow_loop(gru, {9, 7}, k), str(k)
    assert (found["n_targets"], found["n_known"]) == (loop["n_targets"], loop["n_known"]) == (11, 8)
    for metric in ("recall", "mrr"):
        assert found["all"][metric][k] == pytest.approx(loop[metric] / 11)
        assert found["known"][metric][k] == pytest.approx(loop[metric] / 8)
    assert found["new"]["n_targets"] == loop["new"] == 3
    assert found["new"]["recall"][k] == pytest.approx(loop["new_hits"] / 3)
    assert found["new"]["share_of_lists"][k] == pytest.approx(loop["lists"] / 8)
    assert found["new"]["share_of_places"][k] == pytest.approx(loop["places"] / 8 / int(k))


def test_without_new_items_there_is_no_recall_of_them() -> None:
    found = measure(trained(), log_of(FOLLOWING), None, cutoffs=[2], ties="standard")
    assert found["new"] == {
        "n_targets": 0, "recall": {"2": None}, "share_of_lists": {"2": 0.0}, "share_of_places": {"2": 0.0}
    }  # fmt: skip


@pytest.mark.parametrize(
    "following", [[[7, 1], [2, 7]], [[7, 8], [8, 7, 8]]], ids=["no known item beside another", "no known item"]
)
def test_targets_of_a_log_with_nothing_to_rank_are_misses(following: list[list[int]]) -> None:
    found = measure(trained(), log_of(following), Vocabulary([7]), cutoffs=[2], ties="standard")
    assert (found["n_targets"], found["n_known"]) == (sum(map(len, following)) - 2, 0)
    assert found["all"] == {"recall": {"2": 0.0}, "mrr": {"2": 0.0}}
    assert found["known"] == {"recall": {"2": None}, "mrr": {"2": None}}
    assert found["new"] == {
        "n_targets": 1, "recall": {"2": 0.0}, "share_of_lists": {"2": None}, "share_of_places": {"2": None}
    }  # fmt: skip


def test_backtest_whose_last_part_is_unknown_is_carried_out(tmp_path: Path) -> None:
    pd.DataFrame(
        [(session, item, 10 * session + place) for session, events in enumerate(
            [[1, 2], [2, 1], [1, 2], [2, 1], [7, 1], [2, 7]]) for place, item in enumerate(events)],
        columns=["SessionId", "ItemId", "Time"],
    ).to_csv(tmp_path / "log.tsv", sep="\t", index=False)  # fmt: skip
    argv = ["backtest", tmp_path / "log.tsv", "-o", tmp_path / "out", "--parts", 3, "-m", 1, "-d", "cpu", "-q"]
    status, stdout, stderr = call(door.main, [*argv, "-ps", "layers=4,n_epochs=1,batch_size=2"])
    assert (status, stderr) == (0, "")
    lines = [line.split() for line in stdout.splitlines()]
    assert lines[2][:-1] == ["1", "update", "0.0000", "0.0000", "-", "-", "-"]
    assert lines[5][:-1] == ["mean", "update", "0.0000", "0.0000", "-", "-", "-"]
    assert "hits nothing" in stdout
    assert (tmp_path / "out" / "backtest.html").exists()


def test_summary_by_hand() -> None:
    def row(mrr: float, seconds: float, new: float | None) -> dict[str, Any]:
        quality = {"recall": {"20": 2 * mrr}, "mrr": {"20": mrr}}
        news = {"recall": {"20": new}, "share_of_lists": {"20": 0.5}, "share_of_places": {"20": 0.1}}
        return {"all": quality, "known": quality, "new": news, "seconds": seconds, "cpu_seconds": seconds / 2}

    windows = [
        {"window": 1, "policies": {"retrain": row(0.2, 10, 0.4), "update": row(0.1, 2, 0.2), "stale": row(0, 0, 0)}},
        {"window": 2, "policies": {"retrain": row(0.4, 20, None), "update": row(0.4, 4, None), "stale": row(0, 0, 0)}},
    ]
    found = summary_of(windows, ["20"])
    assert found["update"]["all"]["mrr"]["20"] == pytest.approx(0.25)
    assert found["retrain"]["new"]["recall"]["20"] == pytest.approx(0.4)  # of the window that has new targets
    assert found["update_over_retrain"]["mrr"]["20"] == pytest.approx(0.25 / 0.3)
    assert found["update_over_retrain"]["seconds"] == pytest.approx(6 / 30)
    results = {"plan": {"cutoffs": [20]}, "windows": windows, "summary": found}
    assert verdict(results).startswith("Updating reaches 83.3% of the MRR@20 and 83.3% of the Recall@20")
    lines = list(table_lines(results))
    assert lines[5].split() == ["2", "update", "0.8000", "0.4000", "0.4000", "-", "0.5000", "4.0"]
    assert lines[8].split() == ["mean", "update", "0.5000", "0.2500", "0.2500", "0.2000", "0.5000", "3.0"]
    assert len(lines) == 11


# --- the made-up shop ---


@pytest.fixture(scope="module")
def shop_log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    settings = ShopSettings(n_items=400, n_sessions=4_000, n_categories=20, zipf_exponent=0.6, seed=7)
    return write_logs(simulate_shop(settings), tmp_path_factory.mktemp("shop"))["train"]


@pytest.fixture(scope="module")
def late_log(shop_log: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The shop's log without a fifth of the items in its first half: they are new then."""
    rows = [line.split("\t") for line in shop_log.read_text().splitlines()]
    head, rows = rows[0], rows[1:]
    time = head.index("Time")
    item = head.index("ItemId")
    middle = sorted(int(row[time]) for row in rows)[len(rows) // 2]
    kept = [row for row in rows if int(row[time]) >= middle or int(row[item]) % 5]
    path = tmp_path_factory.mktemp("late") / "late.tsv"
    path.write_text("\n".join("\t".join(row) for row in [head, *kept]) + "\n")
    return path


@pytest.fixture(scope="module")
def done(late_log: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    folder = tmp_path_factory.mktemp("backtest") / "out"
    argv = ["backtest", late_log, "-o", folder, "--parts", 4, "-ps", SETTINGS, "-d", "cpu", "-q", "-m", 20, 5]
    status, stdout, stderr = call(door.main, argv)
    assert (status, stderr) == (0, "")
    results = json.loads((folder / "backtest.json").read_text())
    assert stdout.splitlines() == list(table_lines(results))
    return folder, results


def test_updating_follows_the_shop_and_doing_nothing_does_not(done: tuple[Path, dict[str, Any]]) -> None:
    summary = done[1]["summary"]
    mrr = {policy: summary[policy]["all"]["mrr"]["20"] for policy in ("retrain", "update", "stale")}
    assert mrr["update"] > 0.93 * mrr["retrain"]
    assert mrr["stale"] < 0.9 * mrr["update"]
    for policy in ("retrain", "update", "stale"):
        row = summary[policy]
        assert row["all"]["mrr"]["20"] < row["known"]["mrr"]["20"]


def test_new_items_are_recommended_after_an_update(done: tuple[Path, dict[str, Any]]) -> None:
    """The third part brings what was left out of the first half: about an eighth of the targets that follow."""
    window = done[1]["windows"][1]["policies"]
    assert window["update"]["account"]["n_new_items"] > 40
    new = {policy: row["new"] for policy, row in window.items()}
    share_of_targets = new["update"]["n_targets"] / window["update"]["n_targets"]
    assert 0.1 < share_of_targets < 0.2
    assert new["update"]["recall"]["20"] > 0.8 * new["retrain"]["recall"]["20"] > 0.3
    assert new["update"]["recall"]["20"] > 5 * 20 / 400  # of 20 items drawn blindly
    assert 0.5 * share_of_targets < new["update"]["share_of_places"]["20"] < 2 * share_of_targets
    assert new["update"]["share_of_lists"]["20"] > 0.8
    assert new["stale"] == {**new["stale"], "recall": {"20": 0.0, "5": 0.0}, "share_of_lists": {"20": 0.0, "5": 0.0}}


def numbers_of(results: dict[str, Any]) -> Any:
    """Everything but wall times and what was found."""
    if isinstance(results, dict):
        left_out = {"seconds", "cpu_seconds", "n_found", "command"}
        return {name: numbers_of(value) for name, value in results.items() if name not in left_out}
    return [numbers_of(value) for value in results] if isinstance(results, list) else results


def test_backtest_goes_on_where_it_was_interrupted(
    done: tuple[Path, dict[str, Any]], late_log: Path, tmp_path: Path
) -> None:
    folder, results = done
    shutil.copytree(folder, tmp_path / "again")
    parts = tmp_path / "again" / "parts"
    (last,) = [path for path in parts.glob("update-*.json") if json.loads(path.read_text())["seconds"]
               == results["windows"][1]["policies"]["update"]["seconds"]]  # fmt: skip
    last.unlink()
    for model in parts.glob("*.gru4rec"):
        model.write_bytes(b"damaged")
    (tmp_path / "again" / "backtest.json").unlink()
    argv = ["backtest", late_log, "-o", tmp_path / "again", "--parts", 4, "-ps", SETTINGS, "-d", "cpu", "-m", 20, 5]
    status, _, stderr = call(door.main, argv)
    assert status == 0
    assert stderr.count("(found)") == 6
    again = json.loads((tmp_path / "again" / "backtest.json").read_text())
    assert again["n_found"] == 6
    assert numbers_of(again) == numbers_of(results)


def test_every_setting_of_an_update_is_used(late_log: Path, tmp_path: Path) -> None:
    seen: list[Any] = []
    for more in (
        [], ["--replay-share", 0.1], ["--replay-choice", "recent", "--replay-share", 0.5], ["--replay-share", 0.5],
        ["--decay", 0.5], ["-us", "n_epochs=1"], ["-us", "learning_rate=0.01"],
    ):  # fmt: skip
        folder = tmp_path / str(len(seen))
        argv = ["backtest", late_log, "-o", folder, "--parts", 3, "-ps", SETTINGS, "-d", "cpu", "-q", "--no-report"]
        assert call(door.main, [*argv, *more])[0] == 0
        results = json.loads((folder / "backtest.json").read_text())
        assert results["windows"][0]["policies"]["update"]["all"] not in seen, more
        seen.append(results["windows"][0]["policies"]["update"]["all"])
        assert not (folder / "backtest.html").exists()


@pytest.mark.parametrize(
    ("flags", "fragments"),
    [
        (["--parts", 2], ("--parts 2", "3 parts")),
        (["--parts", 4, "--days", 1], ("--days and --parts",)),
        (["--first-days", 2], ("--first-days needs --days",)),
        (["--days", 400], ("fewer than 3 parts",)),
        (["-us", "layers=3"], ("layers in -us cannot be changed by an update",)),
        (["-us", "speed=3"], ("unknown parameter 'speed' in -us",)),
        (["-ps", "layers=x"], ("layers='x'", "-ps")),
        (["--decay", 2], ("decay=2", "up to 1")),
        (["-m", 100_000], ("k=100000",)),
        (["--replay-share", -1], ("replay_share=-1",)),
    ],
)
def test_wrong_input_is_refused_and_leaves_no_folder(flags: list[Any], fragments: tuple[str, ...], late_log: Path,
                                                     tmp_path: Path) -> None:  # fmt: skip
    status, stdout, stderr = call(door.main, ["backtest", late_log, "-o", tmp_path / "out", *flags, "-d", "cpu", "-q"])
    assert (status, stdout) == (2, "")
    assert len(stderr.splitlines()) == 1
    for fragment in fragments:
        assert fragment in stderr
    assert not (tmp_path / "out").exists()


def run_small(log: Path, folder: Path, *more: Any) -> tuple[Any, str, str]:
    settings = "layers=4,n_epochs=1,batch_size=16,n_sample=16"
    argv = ["backtest", log, "-o", folder, "--parts", 3, "-ps", settings, "-d", "cpu", "--no-report", *more]
    return call(door.main, argv)


def test_folder_of_something_else_is_refused_and_stays_as_it_was(late_log: Path, tmp_path: Path) -> None:
    for name, text in (("log.tsv", "mine"), ("plan.json", "{}"), ("plan.json", "no JSON")):
        folder = tmp_path / "folder"
        folder.mkdir()
        (folder / name).write_text(text)
        status, _, stderr = run_small(late_log, folder)
        assert status == 2
        assert stderr == f"ConfigError: {folder} is not empty, and holds no backtest. Give -o another folder\n"
        assert [path.name for path in folder.iterdir()] == [name]
        assert (folder / name).read_text() == text
        shutil.rmtree(folder)


def test_second_backtest_in_a_folder_is_refused_while_the_first_one_works(late_log: Path, tmp_path: Path) -> None:
    with taken(tmp_path):
        status, _, stderr = run_small(late_log, tmp_path)
    assert status == 2
    assert stderr.startswith(f"ConfigError: another gru4rec backtest works in {tmp_path}. Wait for it")
    assert len(stderr.splitlines()) == 1
    assert run_small(late_log, tmp_path, "-q")[0] == 0


def test_another_backtest_in_the_folder_is_replaced_and_said_so(late_log: Path, tmp_path: Path) -> None:
    said = [run_small(late_log, tmp_path, *more)[2] for more in ([], [], ["--decay", 0.5], ["--decay", 0.5])]
    assert ["are replaced" in one for one in said] == [False, False, True, False]
    assert f"the results of another backtest in {tmp_path} are replaced: it had update.decay=1.0, and 0.5" in said[2]


def test_first_clock_of_a_process_starts_warm(late_log: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[str] = []
    clock, warm = gru4rec.backtest.job._Clock, gru4rec.backtest.job.warm_up
    monkeypatch.setattr(gru4rec.backtest.job, "_Clock", lambda: order.append("clock") or clock())
    monkeypatch.setattr(
        gru4rec.backtest.job, "warm_up", lambda *args, **how: order.append("warm") or warm(*args, **how)
    )
    run_small(late_log, tmp_path)
    assert order == ["warm", "clock", "clock", "clock"]
    for kind, expected in (("update", ["warm", "clock"]), ("nothing", [])):
        order.clear()
        for path in (tmp_path / "parts").glob(f"{kind}-*.json"):
            path.unlink()
        run_small(late_log, tmp_path)
        assert order == expected


def test_interrupted_backtest_says_how_it_goes_on(
    late_log: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*args: Any, **how: Any) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr(gru4rec.backtest.job, "update", interrupted)
    status, _, stderr = run_small(late_log, tmp_path / "out")
    assert status == 130
    assert stderr.splitlines()[-2:] == [
        f"what is finished lies in {tmp_path / 'out' / 'parts'}; the same command goes on from there", "interrupted"
    ]  # fmt: skip
    monkeypatch.undo()
    status, _, stderr = run_small(late_log, tmp_path / "out")
    assert status == 0
    assert stderr.count("(found)") == 2
    assert "the first model: " in stderr
    assert "window 1 of 1, train anew: " in stderr
    assert "window 1 of 1, do nothing: " in stderr


def test_threads_are_those_that_help_models_or_updates(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import gru4rec.model.device
    from gru4rec.cli.backtest import _plan
    from gru4rec.cli.main import _parser

    monkeypatch.setattr(gru4rec.model.device, "ALL_THREADS", 7)
    for flags, n in (
        ([], 1), (["-ps", "layers=1000,n_sample=2048"], 7), (["-us", "n_sample=all"], 7), (["--threads", "3"], 3)
    ):  # fmt: skip
        args = _parser().parse_args(["backtest", "log.tsv", "-o", "out", "-d", "cpu", *flags])
        assert _plan(args).threads == n


def test_page_of_another_kind_is_not_replaced(late_log: Path, tmp_path: Path) -> None:
    run_small(late_log, tmp_path)
    (tmp_path / "backtest.html").write_text("mine")
    status, _, stderr = call(door.main, ["backtest", late_log, "-o", tmp_path, "-d", "cpu", "-q"])
    assert status == 2
    assert "no page that gru4rec backtest wrote" in stderr
    assert (tmp_path / "backtest.html").read_text() == "mine"
