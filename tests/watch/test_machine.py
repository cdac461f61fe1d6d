"""Figures agree with /proc, with psutil and with what a child process says of itself, read from outside the watch."""

from __future__ import annotations

import mmap
import os
import resource
import subprocess
import sys
import threading
import time
from collections import namedtuple
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest

from gru4rec.watch.machine import FIELDS, MachineWatch

linux = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
TICKS_PER_S = os.sysconf("SC_CLK_TCK")

_CHILD = """
import subprocess, sys, time
burn = "import time\\nwhile time.process_time() < {}: pass"
held = b""
for line in sys.stdin:
    word, value = line.split()
    if word == "hold":
        held = bytearray(b"x") * int(value)
    elif word == "burn":
        until = time.process_time() + float(value)
        while time.process_time() < until: pass
    elif word == "burn_in_child":
        subprocess.run([sys.executable, "-S", "-c", burn.format(value)], check=True)
    elif word == "start_child":
        child = subprocess.Popen([sys.executable, "-S", "-c", burn.format(value) + "\\ntime.sleep(60)"])
    elif word == "kill_child":
        child.kill(); child.wait()
    print("done", flush=True)
"""


class Child:
    """A process that uses as many processor seconds and bytes as it is told to."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process, self.pid = process, process.pid

    def __call__(self, word: str, value: float) -> None:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(f"{word} {value}\n")
        self.process.stdin.flush()
        assert self.process.stdout.readline() == "done\n"


@contextmanager
def child_process() -> Iterator[Child]:
    command = [sys.executable, "-c", _CHILD]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        child = Child(process)
        child("burn", 0)
        yield child
        assert process.stdin is not None
        process.stdin.close()


@pytest.fixture
def child() -> Iterator[Child]:
    with child_process() as process:
        yield process


def proc_seconds(pid: int) -> float:
    """Processor seconds of a process and the children it waited for: fields 14 to 17 of /proc/PID/stat."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return sum(map(int, fields[11:15])) / TICKS_PER_S


def seconds_of(sample: Any) -> float:
    return float(sample["process_share"] * sample["interval_s"])


@linux
def test_share_of_a_process_is_what_it_burned_and_what_proc_says(child: Child) -> None:
    watch, before = MachineWatch(child.pid), proc_seconds(child.pid)
    child("burn", 1.5)
    time.sleep(0.5)
    seconds, outside = seconds_of(watch.sample()), proc_seconds(child.pid) - before
    assert seconds == pytest.approx(outside, rel=0.05)
    assert seconds == pytest.approx(1.5, rel=0.05)


@linux
def test_share_counts_a_child_that_has_ended(child: Child) -> None:
    watch, before = MachineWatch(child.pid), proc_seconds(child.pid)
    child("burn", 0.5)
    child("burn_in_child", 1.0)
    seconds = seconds_of(watch.sample())
    assert seconds == pytest.approx(proc_seconds(child.pid) - before, rel=0.05)
    assert seconds == pytest.approx(1.5, rel=0.05)


@linux
def test_share_counts_a_child_that_runs_once_over_its_life(child: Child) -> None:
    watch = MachineWatch(child.pid)
    child("start_child", 1.0)
    running = psutil.Process(child.pid).children()[0]
    while sum(running.cpu_times()[:2]) < 0.98:
        time.sleep(0.05)
    outside = sum(running.cpu_times()[:2])
    first = watch.sample()
    assert seconds_of(first) == pytest.approx(outside, abs=0.08)
    child("kill_child", 0)  # its second is its parent's now, and must not come again
    assert seconds_of(first) + seconds_of(watch.sample()) == pytest.approx(1.0, abs=0.1)


def test_resident_memory_is_what_the_process_took_and_what_psutil_says(child: Child) -> None:
    watch = MachineWatch(child.pid)
    before, after_start = watch.sample()["process_resident_bytes"], psutil.Process(child.pid).memory_info().rss
    child("hold", 200_000_000)
    after = watch.sample()["process_resident_bytes"]
    assert isinstance(before, float)
    assert isinstance(after, float)
    assert after - before == pytest.approx(200_000_000, rel=0.05)
    assert after == pytest.approx(psutil.Process(child.pid).memory_info().rss, rel=0.05)
    assert before == pytest.approx(after_start, rel=0.05)


@linux
def test_cores_of_the_machine_are_what_proc_stat_says(child: Child) -> None:
    def read() -> list[list[int]]:
        lines = Path("/proc/stat").read_text().splitlines()[1:]
        return [[int(word) for word in line.split()[1:9]] for line in lines if line.startswith("cpu")]

    watch, before = MachineWatch(child.pid), read()
    child("burn", 2.0)
    sample, after = watch.sample(), read()
    spent = [[new - old for old, new in zip(*pair, strict=True)] for pair in zip(before, after, strict=True)]
    # user nice system idle iowait irq softirq steal: all but idle and iowait is busy
    busy = [1 - (ticks[3] + ticks[4]) / sum(ticks) for ticks in spent]
    assert sample["core_shares"] == pytest.approx(busy, abs=0.05)
    assert sample["io_wait_share"] == pytest.approx(sum(ticks[4] / sum(ticks) for ticks in spent), abs=0.05)
    assert sum(busy) > 0.9  # the child kept a core busy


@linux
def test_core_is_neither_busy_while_it_idles_nor_while_it_waits_for_a_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    # of 10 seconds 4 in user (1 of them a guest's), 1 in system, 3 idle, 2 waiting; the other core's clock stands
    names = ("user", "system", "idle", "iowait", "guest")
    read = [[(0, 0, 0, 0, 0), (5, 5, 5, 5, 0)], [(4, 1, 3, 2, 1), (5, 5, 5, 5, 0)]]
    times = namedtuple("times", names)  # as psutil has them
    monkeypatch.setattr(psutil, "cpu_times", lambda percpu: [times(*map(float, core)) for core in read.pop(0)])
    sample = MachineWatch().sample()
    assert sample["core_shares"] == pytest.approx([0.5, 0.0])
    assert sample["io_wait_share"] == pytest.approx(0.2)


@linux
def test_memory_of_the_machine_is_what_proc_meminfo_says() -> None:
    sample = MachineWatch().sample()
    lines = Path("/proc/meminfo").read_text().splitlines()
    kilobytes = {line.split(":")[0]: int(line.split()[1]) for line in lines}
    assert sample["memory_total_bytes"] == kilobytes["MemTotal"] * 1024
    assert sample["memory_available_bytes"] == pytest.approx(kilobytes["MemAvailable"] * 1024, rel=0.05)
    used = (kilobytes["MemTotal"] - kilobytes["MemAvailable"]) * 1024
    assert sample["memory_used_bytes"] == pytest.approx(used, rel=0.05, abs=100_000_000)
    assert sample["swap_used_bytes"] == (kilobytes["SwapTotal"] - kilobytes["SwapFree"]) * 1024
    assert sample["load"] == pytest.approx(float(Path("/proc/loadavg").read_text().split()[0]), abs=0.2)


@linux
def test_major_faults_are_what_the_system_counts_for_us(tmp_path: Path) -> None:
    path, n_pages = tmp_path / "cold", 512
    path.write_bytes(b"x" * n_pages * mmap.PAGESIZE)
    file = os.open(path, os.O_RDONLY)
    os.fsync(file)
    os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
    watch, before = MachineWatch(), resource.getrusage(resource.RUSAGE_SELF).ru_majflt
    with mmap.mmap(file, 0, prot=mmap.PROT_READ) as cold:
        cold.madvise(mmap.MADV_RANDOM)
        assert sum(cold[page * mmap.PAGESIZE] for page in range(n_pages)) == n_pages * ord("x")
    sample, after = watch.sample(), resource.getrusage(resource.RUSAGE_SELF).ru_majflt
    os.close(file)
    if after == before:
        pytest.skip(f"{tmp_path} is in memory: nothing there is read from a disk")
    assert sample["major_faults_per_s"] * sample["interval_s"] == pytest.approx(after - before, rel=0.05)


def test_swapped_pages_are_in_and_out_by_4096_bytes_a_second(monkeypatch: pytest.MonkeyPatch) -> None:
    counts = [SimpleNamespace(used=7, sin=0, sout=0), SimpleNamespace(used=7, sin=4096 * 300, sout=4096 * 500)]
    monkeypatch.setattr(psutil, "swap_memory", lambda: counts.pop(0))
    watch = MachineWatch()
    time.sleep(0.1)
    sample = watch.sample()
    assert sample["swap_pages_per_s"] * sample["interval_s"] == pytest.approx(800)
    assert sample["swap_used_bytes"] == 7


def test_own_process_is_watched_where_no_pid_is_given() -> None:
    watch, before = MachineWatch(), time.process_time()
    while time.process_time() < before + 0.6:
        pass
    assert seconds_of(watch.sample()) == pytest.approx(time.process_time() - before, rel=0.05, abs=0.03)


def test_process_that_has_ended_has_no_figures_and_the_machine_still_has(child: Child) -> None:
    watch = MachineWatch(child.pid)
    child.process.kill()
    child.process.wait()
    for sample in (watch.sample(), MachineWatch(2**22 + 1).sample()):
        assert sample["process_share"] is None
        assert sample["process_resident_bytes"] is None
        assert sample["major_faults_per_s"] is None
        assert sample["core_shares"]


def test_every_figure_is_documented_and_every_documented_figure_is_there() -> None:
    sample = MachineWatch().sample()
    assert sample.keys() == FIELDS.keys()
    for name, value in sample.items():
        assert value is None or isinstance(value, int | float | list), name


@linux
def test_sample_takes_less_than_2_ms_and_no_thread(child: Child) -> None:
    n_threads = threading.active_count()
    child("start_child", 0)
    watch = MachineWatch(child.pid)
    costs = []
    for _ in range(50):
        before = time.thread_time()
        watch.sample()
        costs.append(time.thread_time() - before)
    child("kill_child", 0)
    assert sorted(costs)[25] < 0.002
    assert threading.active_count() == n_threads
