"""A run folder, read while it is written: torn lines, processes that are gone, runs that go on."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from watch.made_up_run import GONE_PID, lines_of_epoch, write_config, write_lines, write_run

from gru4rec.errors import DataError
from gru4rec.watch.run_folder import WatchedRun


def test_torn_last_line_waits_for_its_other_half(tmp_path: Path) -> None:
    write_config(tmp_path)
    first, second, *_ = lines_of_epoch(1)
    whole = json.dumps(second)
    write_lines(tmp_path, [first], torn=whole[:40])
    run = WatchedRun(tmp_path)
    assert list(run.steps) == [first]
    write_lines(tmp_path, [first], torn=whole)  # all of it but the line's end
    run.refresh()
    assert list(run.steps) == [first, second]
    write_lines(tmp_path, [first, second])
    run.refresh()
    assert list(run.steps) == [first, second]
    assert run.n_unreadable == 0


def test_damaged_line_in_the_middle_is_counted_and_left_out(tmp_path: Path) -> None:
    write_config(tmp_path)
    first, second, *_ = map(json.dumps, lines_of_epoch(1))
    (tmp_path / "metrics.jsonl").write_bytes(b"\n".join([first.encode(), b"{torn", b"\xff\xfe", second.encode(), b""]))
    run = WatchedRun(tmp_path)
    assert len(run.steps) == 2
    assert run.n_unreadable == 2


def test_missing_or_empty_metrics_are_no_error(tmp_path: Path) -> None:
    write_config(tmp_path)
    run = WatchedRun(tmp_path)
    assert run.newest is None
    assert run.seconds_left() is None
    (tmp_path / "metrics.jsonl").touch()
    run.refresh()
    assert run.n_epochs_done() == 0


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            None,
            r"is not a run folder: config\.json: No such file or directory\. Give the folder of gru4rec train --run",
        ),
        ("{", r"is not a run folder: cannot read config\.json"),
        ("[1]", r"is not a run folder: cannot read config\.json: no settings of a run"),
        ("{}", r"is not a run folder: cannot read config\.json: no settings of a run"),
    ],
)
def test_folder_that_is_not_a_run_is_refused(tmp_path: Path, text: str | None, message: str) -> None:
    if text is not None:
        (tmp_path / "config.json").write_text(text)
    with pytest.raises(DataError, match=message):
        WatchedRun(tmp_path)


def test_config_that_is_away_for_a_moment_is_what_it_was(tmp_path: Path) -> None:
    run = WatchedRun(write_run(tmp_path, recalls=[0.3]))
    (tmp_path / "config.json").unlink()
    run.refresh()
    assert run.status() == "finished"


def test_run_whose_process_is_gone_is_lost(tmp_path: Path) -> None:
    run = WatchedRun(write_run(tmp_path, recalls=[0.3], status="running"))
    assert run.status() == f"lost: no process {GONE_PID} on this host; go on with --resume"
    assert run.is_over


def test_run_whose_process_has_become_a_zombie_is_lost(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-S", "-c", ""], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.read()  # it has ended, and nobody has asked for its status
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        assert WatchedRun(write_run(tmp_path, recalls=[], status="running", pid=process.pid)).is_lost


def test_process_that_was_given_the_number_later_is_another(tmp_path: Path) -> None:
    write_run(tmp_path, recalls=[0.3], status="running", pid=os.getpid())
    assert WatchedRun(tmp_path).status() == f"running, process {os.getpid()}"
    os.utime(tmp_path / "config.json", (1e9, 1e9))  # 2001: before this process began
    assert WatchedRun(tmp_path).is_lost


def test_run_on_another_host_is_running_by_its_own_account(tmp_path: Path) -> None:
    run = WatchedRun(write_run(tmp_path, recalls=[0.3], status="running", host="elsewhere"))
    assert run.status() == f"running, as process {GONE_PID} on elsewhere, by its own account"
    assert not run.is_over


@pytest.mark.parametrize("status", ["finished", "interrupted", "failed", "diverged"])
def test_run_that_has_ended_is_over(tmp_path: Path, status: str) -> None:
    run = WatchedRun(write_run(tmp_path, recalls=[0.3], status=status))
    assert run.is_over
    assert run.status() == status


def test_progress_counts_epochs_and_the_events_of_the_one_that_is_not_done(tmp_path: Path) -> None:
    run = WatchedRun(write_run(tmp_path, recalls=[0.3, 0.4], n_more=2))
    assert run.n_epochs_done() == pytest.approx(2.5)  # two lines of a second at 25,000 events/s of 100,000
    assert run.seconds_left() == pytest.approx(30.0)  # 7.5 of 10 epochs, 4 seconds each


def test_best_epoch_is_by_the_metric_that_decides_and_the_earlier_of_equal_ones(tmp_path: Path) -> None:
    run = WatchedRun(write_run(tmp_path / "a", recalls=[0.2, 0.4, 0.4, 0.3]))
    assert run.best_epoch() == 1
    write_config(tmp_path / "b", metric="mrr", cutoffs=[20])
    first, second = lines_of_epoch(1, recall=0.2), lines_of_epoch(2, recall=0.4)
    first[-1]["validation"]["mrr@20"] = 0.3
    write_lines(tmp_path / "b", first + second)
    run = WatchedRun(tmp_path / "b")
    assert (run.deciding_metric(), run.best_epoch()) == ("mrr@20", 0)


def test_lines_that_were_cut_back_are_read_anew(tmp_path: Path) -> None:
    run = WatchedRun(write_run(tmp_path, recalls=[0.2, 0.4]))
    write_lines(tmp_path, lines_of_epoch(1, recall=0.2))
    run.refresh()
    assert len(run.epochs) == 1
    # another process goes on from a checkpoint and writes more than was there
    write_run(tmp_path, recalls=[0.25, 0.3, 0.35], pid=os.getpid(), status="running")
    run.refresh()
    assert [line["validation"]["recall@20"] for line in run.epochs] == [0.25, 0.3, 0.35]


def test_speed_of_an_epoch_is_its_events_by_its_time_and_not_that_of_its_last_steps(tmp_path: Path) -> None:
    write_config(tmp_path)
    first, second = lines_of_epoch(1), lines_of_epoch(2)
    second[-1] |= {"time": 14.0, "events_per_second": 1.0}
    write_lines(tmp_path, first + second)
    run = WatchedRun(tmp_path)
    assert run.epoch_speed(0) == 25_000  # 100,000 events in 4 s
    assert run.epoch_speed(1) == 10_000  # in 10 s more
