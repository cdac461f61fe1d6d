"""``gru4rec monitor``: one view for pipelines, and the live one at a real terminal."""

from __future__ import annotations

import os
import re
import secrets
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT
from watch.made_up_run import GONE_PID, lines_of_epoch, sample, write_config, write_lines, write_run

from gru4rec.cli.main import main
from gru4rec.watch.run_folder import WatchedRun
from gru4rec.watch.view import spoken, view

GRU4REC = f"{sys.executable} -c 'from gru4rec.cli.main import command; command()'"
RECALLS = [0.2, 0.3, 0.35, 0.32]


def once(capsys: pytest.CaptureFixture[str], folder: Path) -> str:
    assert main(["monitor", str(folder), "--once"]) == 0
    captured = capsys.readouterr()
    assert captured.err == ""
    return captured.out


# --- one view


def test_once_shows_status_progress_loss_speed_metrics_and_machine(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shown = once(capsys, write_run(tmp_path, recalls=RECALLS, n_more=2, status="interrupted"))
    lines = shown.splitlines()
    assert lines[1].split() == ["status", "interrupted"]
    assert "4 of 10 done, step 4,500, 18.0 s of training" in shown
    assert "45.0%" in shown
    assert re.search(r"^loss       4\.200000 +█.*▁$", shown, flags=re.MULTILINE)
    assert re.search(r"^events/s   25,000 ", shown, flags=re.MULTILINE)
    assert "norms      gradient 0.5, weights 40" in shown
    table = [line.split() for line in lines if re.match(r" *(epoch +loss|\d) ", line)]
    assert table == [
        ["epoch", "loss", "events/s", "recall@20", "mrr@20"],
        ["1", "5.600000", "25,000", "0.200000", "0.050000"],
        ["2", "5.200000", "25,000", "0.300000", "0.075000"],
        ["3", "4.800000", "25,000", "0.350000", "0.087500", "best", "recall@20"],
        ["4", "4.400000", "25,000", "0.320000", "0.080000"],
    ]
    assert "this run 1.0 of 2 cores, others 0.1, load 1.1, disk wait 0.0" in shown
    assert "cores      0 ━━━━━━ 100%  1 ──────   5%" in shown
    assert "machine ━━━━──────  40% of 25.0 GB, this run 0.6 GB" in shown


def test_once_of_a_lost_run_says_so_and_what_to_do(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shown = once(capsys, write_run(tmp_path, recalls=RECALLS, status="running"))
    assert f"status     lost: no process {GONE_PID} on this host; go on with --resume\n" in shown
    assert " left" not in shown


def test_once_of_a_running_run_measures_its_process_now(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = write_run(tmp_path, recalls=RECALLS, n_more=2, status="running", pid=os.getpid())
    shown = once(capsys, folder)
    assert f"status     running, process {os.getpid()}\n" in shown
    assert "epoch      5 of 10, step 4,500" in shown
    assert " 45.0%  22.0 s left" in shown  # 5.5 epochs of 100,000 events, 25,000 a second
    assert "as the run last recorded it" not in shown
    assert f"of {os.cpu_count()} cores" in shown


def test_once_tolerates_a_torn_line_and_no_lines_at_all(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = write_run(tmp_path, recalls=RECALLS)
    whole = once(capsys, folder)
    with open(folder / "metrics.jsonl", "a") as file:
        file.write('{"kind": "epoch", "epoch": 5, "st')
    assert once(capsys, folder) == whole
    (folder / "metrics.jsonl").unlink()
    assert "no line yet" in once(capsys, folder)


def test_once_shows_hints_of_a_run_that_did_not_finish(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_config(tmp_path, status="failed")
    write_lines(tmp_path, lines_of_epoch(1, memory_available_bytes=0))
    assert "! The machine's memory is 100% full" in once(capsys, tmp_path)
    write_config(tmp_path, status="finished")
    assert "!" not in once(capsys, tmp_path)


def test_diverged_run_with_a_loss_that_is_no_number_is_shown(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_config(tmp_path, status="diverged")
    write_lines(tmp_path, [*lines_of_epoch(1, n_lines=3), {"kind": "steps", "step": 1000, "loss": float("nan")}])
    shown = once(capsys, tmp_path)
    assert "loss       not finite" in shown
    assert "status     diverged" in shown


def test_once_at_a_terminal_with_ascii_only_prints_ascii(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "Läufe", recalls=RECALLS)
    done = subprocess.run(
        f"{GRU4REC} monitor {shlex.quote(str(folder))} --once", shell=True, capture_output=True, cwd=ROOT, check=True,
        env={**os.environ, "PYTHONIOENCODING": "ascii"},
    )  # fmt: skip
    shown = done.stdout.decode("ascii")
    assert "cores      0 ###### 100%" in shown
    assert done.stderr == b""


def test_folder_that_is_no_run_is_one_error_and_status_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for folder in (tmp_path, tmp_path / "none"):
        assert main(["monitor", str(folder), "--once"]) == 2
        captured = capsys.readouterr()
        assert captured.out == ""
        assert captured.err.startswith(f"DataError: {folder} is not a run folder: config.json: ")
        assert captured.err.count("\n") == 1


@pytest.mark.parametrize("interval", ["0", "-1", "nan", "inf", "1e9"])
def test_interval_out_of_range_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str], interval: str) -> None:
    assert main(["monitor", str(write_run(tmp_path, recalls=[])), f"--interval={interval}"]) == 2
    assert "is not from 0.2 to 3600 seconds" in capsys.readouterr().err


def test_live_view_of_a_run_that_is_over_ends_at_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["monitor", str(write_run(tmp_path, recalls=RECALLS))]) == 0
    assert "finished" in capsys.readouterr().out


# --- what fits


MACHINES = [
    sample(),
    sample(core_shares=[0.5] * 16, gpu_use_shares=[0.5] * 4, gpu_temperatures_c=[60] * 4, gpu_powers_w=None),
    sample(core_shares=[0.99] * 256, swap_pages_per_s=1e4, memory_available_bytes=0, process_share=0.1),
    {},
]


@pytest.mark.parametrize("machine", MACHINES, ids=["small", "gpus", "large and troubled", "unknown"])
@pytest.mark.parametrize("size", [(80, 23), (120, 39), (40, 23), (80, 10), (200, 60)])
def test_view_fits_its_terminal_and_keeps_the_best_epoch(
    tmp_path: Path, machine: dict[str, Any], size: tuple[int, int]
) -> None:
    recalls = [0.2, 0.9, *[0.3] * 38]
    run = WatchedRun(write_run(tmp_path, recalls=recalls, n_more=2, status="failed", n_epochs=50, threads=2))
    lines = view(run, [machine], width=size[0], height=size[1]).plain.split("\n")
    assert max(map(len, lines)) <= size[0]
    assert len(lines) <= size[1]
    if size[0] >= 80 and size[1] >= 23:
        assert not any("…" in line for line in lines[1:])  # the folder's name may be long
        assert not any("more lines" in line for line in lines)
        assert any("best recall@20" in line and line.split()[0] == "2" for line in lines)
    elif size[1] == 10 and machine:
        assert "more lines: enlarge the terminal" in lines[-1]


def test_duration_is_said_in_two_units() -> None:
    seconds = (8.25, 60, 3_599.6, 3_600, 86_399, 86_400, 200_000)
    said = ["8.2 s", "1 min 0 s", "1 h 0 min", "1 h 0 min", "23 h 59 min", "1 d 0 h", "2 d 7 h"]
    assert [spoken(value) for value in seconds] == said


# --- at a real terminal


class Terminal:
    """A terminal of a given size, by tmux."""

    def __init__(self, columns: int, rows: int) -> None:
        self._socket = f"gru4rec-{secrets.token_hex(6)}"
        self._tmux("-f", "/dev/null", "new-session", "-d", "-x", str(columns), "-y", str(rows), "env PS1='$ ' sh")

    def _tmux(self, *words: str) -> str:
        environment = {**os.environ, "LC_ALL": "C.UTF-8", "PYTHONPATH": f"{ROOT}:{os.environ.get('PYTHONPATH', '')}"}
        done = subprocess.run(
            ["tmux", "-L", self._socket, *words], env=environment, capture_output=True, text=True, check=True
        )
        return done.stdout

    def type(self, text: str, key: str = "Enter") -> None:
        self._tmux("send-keys", "-l", text)
        self._tmux("send-keys", key)

    def press(self, key: str) -> None:
        self._tmux("send-keys", key)

    def screen(self) -> list[str]:
        return self._tmux("capture-pane", "-p").rstrip("\n").split("\n")

    def wait_for(self, wanted: str, seconds: float = 30) -> list[str]:
        end = time.monotonic() + seconds
        while not re.search(wanted, "\n".join(self.screen()), flags=re.MULTILINE):
            assert time.monotonic() < end, f"no {wanted!r} on the screen:\n" + "\n".join(self.screen())
            time.sleep(0.2)
        return self.screen()

    def close(self) -> None:
        self._tmux("kill-server")


@pytest.fixture
def terminal() -> Iterator[Callable[[int, int], Terminal]]:
    if shutil.which("tmux") is None:
        pytest.skip("no tmux: apt-get install tmux to test the live view at a terminal")
    opened: list[Terminal] = []

    def open_one(columns: int, rows: int) -> Terminal:
        opened.append(Terminal(columns, rows))
        return opened[-1]

    yield open_one
    for one in opened:
        one.close()


@pytest.mark.parametrize("size", [(80, 24), (120, 40)])
def test_live_view_fits_follows_the_run_and_ends_with_it(
    tmp_path: Path, terminal: Callable[[int, int], Terminal], size: tuple[int, int]
) -> None:
    folder = write_run(tmp_path / "run", recalls=[0.2, 0.4, *[0.3] * 28], n_more=1, status="running", pid=os.getpid(),
                       n_epochs=40)  # fmt: skip
    screen = terminal(*size)
    screen.type(f"clear; cd {tmp_path}; clear; {GRU4REC} monitor run --interval 0.3; echo status=$?")
    lines = screen.wait_for(r"^swap .*pages/s")
    shown = "\n".join(lines)
    assert lines[-1].startswith(("swap", "!", "  "))  # the last line, and so all of them
    assert f"status     running, process {os.getpid()}" in shown
    assert "epoch      31 of 40, step 30,250" in shown
    assert "best recall@20" in shown
    assert "…" not in shown
    with open(folder / "metrics.jsonl", "a") as file:
        file.write('{"kind": "steps", "epoch": 31, "step": 30500, "time": 122.0, "loss": 1.25, "events_')
    time.sleep(0.6)
    screen.wait_for("step 30,250")
    with open(folder / "metrics.jsonl", "a") as file:
        file.write('per_second": 25000.0, "machine": null}\n')
    screen.wait_for("step 30,500.*2 min 2 s")
    write_config(folder, status="finished", pid=os.getpid(), n_epochs=40)
    lines = screen.wait_for("^status=0")
    assert [line for line in lines if line.startswith("status")] == ["status     finished", "status=0"]


def test_control_c_ends_the_live_view_with_status_0(tmp_path: Path, terminal: Callable[[int, int], Terminal]) -> None:
    folder = write_run(tmp_path, recalls=[0.2], status="running", pid=os.getpid())
    screen = terminal(100, 30)
    screen.type(f"clear; {GRU4REC} monitor {folder}; echo status=$?")
    screen.wait_for(r"^swap .*pages/s")
    screen.press("C-c")
    lines = screen.wait_for("^status=0")
    assert not any("Traceback" in line or "interrupted" in line for line in lines)
