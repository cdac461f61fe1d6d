"""The cache: a hit only for what gives the same sessions, a miss for everything else, and never a wrong or half map."""

from __future__ import annotations

import gzip
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from conftest import GOLDEN, ROOT

from gru4rec.data import session_cache
from gru4rec.data.events import load_events
from gru4rec.data.files import Columns
from gru4rec.data.session_cache import cached_sessions
from gru4rec.data.session_map import open_session_map, write_session_map
from gru4rec.data.sessions import Sessions
from gru4rec.data.vocabulary import Vocabulary
from gru4rec.errors import DataError

ROWS = "SessionId\tItemId\tTime\tOther\n1\t70\t5\t1\n1\t30\t6\t1\n2\t70\t7\t2\n2\t50\t8\t2\n2\t30\t9\t1\n"
LATER_S = 10.0

_opened: list[str] = []
_is_watching = False


def _watch(event: str, arguments: tuple[Any, ...]) -> None:
    if _is_watching and event == "open":
        _opened.append(str(arguments[0]))


sys.addaudithook(_watch)  # sees every file that Python opens; it cannot be taken away again


@pytest.fixture
def opened() -> Iterator[list[str]]:
    """Paths that were opened since the test began."""
    global _is_watching
    _opened.clear()
    _is_watching = True
    yield _opened
    _is_watching = False


class Clock:
    """Time as the cache sees it: the files of a test are old enough, unless it says otherwise."""

    ahead_s = LATER_S

    def time_ns(self) -> int:
        return time.time_ns() + int(self.ahead_s * 1e9)


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(session_cache, "time", clock)
    return clock


@pytest.fixture
def log(tmp_path: Path) -> Path:
    path = tmp_path / "log.tsv"
    path.write_text(ROWS)
    return path


class Reader:
    """Reads through one cache, and tells what it did."""

    def __init__(self, cache: Path) -> None:
        self.cache = cache

    def __call__(self, path: str | Path, **options: Any) -> tuple[str, Sessions]:
        told: list[str] = []
        sessions = cached_sessions(path, cache=self.cache, tell=told.append, **options)
        assert len(told) <= 1
        assert all(line.startswith(f"{path}: ") and str(self.cache) in line and "MB" in line for line in told)
        return (told[0].split()[1] if told else "read"), sessions

    def does(self, path: str | Path, **options: Any) -> str:
        return self(path, **options)[0]

    @property
    def maps(self) -> list[Path]:
        return sorted((self.cache / "maps").iterdir())


@pytest.fixture
def read(tmp_path: Path) -> Reader:
    return Reader(tmp_path / "cache")


def assert_same(one: Sessions, other: Sessions) -> None:
    for name in ("item_idx", "offsets", "start_time"):
        left, right = getattr(one, name), getattr(other, name)
        assert left.dtype == right.dtype
        np.testing.assert_array_equal(left, right)
    assert one.items.item_ids.equals(other.items.item_ids)
    for name in ("source", "n_unknown_events", "n_unknown_items", "n_lost_sessions"):
        assert getattr(one, name) == getattr(other, name)
    np.testing.assert_array_equal(one.support(), other.support())
    assert one.report() == other.report()


# --- the same sessions ---


@pytest.mark.parametrize("suffix", [".tsv", ".tsv.gz", ".csv", ".parquet"])
@pytest.mark.parametrize("known", [None, [30, 70]], ids=["all", "known"])
def test_cached_sessions_are_those_of_the_log(suffix: str, known: Any, read: Reader, tmp_path: Path) -> None:
    path = tmp_path / f"log{suffix}"
    frame = pd.DataFrame({"SessionId": [1, 1, 2, 3], "ItemId": [70, 30, 30, 50], "Time": [0.5, 1.5, 0.25, 9.0]})
    if suffix == ".parquet":
        frame.to_parquet(path)
    else:
        frame.to_csv(path, sep="," if suffix == ".csv" else "\t", index=False)
    vocabulary = None if known is None else Vocabulary(known)
    expected = Sessions.from_log(load_events(path), vocabulary)
    for wanted in ("written", "mapped", "mapped"):
        done, sessions = read(path, vocabulary=vocabulary)
        assert done == wanted
        assert_same(sessions, expected)
        assert isinstance(sessions.item_idx.base, np.memmap)
        assert vocabulary is None or sessions.items is vocabulary


def test_cached_sessions_are_called_as_the_path_is_given(
    log: Path, read: Reader, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(log.parent)
    for path, wanted in (("./log.tsv", "written"), (log, "mapped"), ("log.tsv", "mapped"), ("./log.tsv", "mapped")):
        done, sessions = read(path)
        assert (done, sessions.source) == (wanted, str(path))
        assert sessions.source == load_events(path).source


def test_without_a_cache_the_log_is_read(log: Path, tmp_path: Path) -> None:
    assert_same(cached_sessions(log, cache=None), Sessions.from_log(load_events(log)))
    assert list(tmp_path.iterdir()) == [log]


# --- hits ---


def test_hit_does_not_open_the_file_but_for_its_first_bytes(log: Path, read: Reader, opened: list[str]) -> None:
    """The first look tells a pickle; a digest or a log would be one more."""
    assert read.does(log) == "written"
    n_opened = opened.count(str(log))
    opened.clear()
    assert read.does(log) == "mapped"
    assert opened.count(str(log)) == 2
    assert n_opened > 4


def test_touched_file_hits_once_its_contents_are_seen_to_be_the_same(
    log: Path, read: Reader, opened: list[str]
) -> None:
    assert read.does(log) == "written"
    os.utime(log, (1, 1))
    for wanted_opens in (3, 2):
        opened.clear()
        assert read.does(log) == "mapped"
        assert opened.count(str(log)) == wanted_opens


def test_same_contents_elsewhere_hit(log: Path, read: Reader) -> None:
    read.does(log)
    copy = log.with_name("copy.tsv")
    shutil.copy(log, copy)
    link = log.with_name("link.tsv")
    link.symlink_to(log)
    assert (read.does(copy), read.does(link)) == ("mapped", "mapped")
    assert len(read.maps) == 1


# --- misses ---


def test_each_choice_of_options_has_a_map_of_its_own(log: Path, read: Reader) -> None:
    """All in one cache, so that each could be taken for any other."""
    vocabularies: list[list[Any]] = [[70, 30, 50], [30, 70], [70, 30], ["30", "70"], [70, 50]]
    choices: list[dict[str, Any]] = [
        {},
        {"columns": Columns(session_key="Other")},
        {"columns": Columns(time_key="Other")},
        *({"vocabulary": Vocabulary(ids)} for ids in vocabularies),
    ]
    for wanted in ("written", "mapped"):
        for choice in choices:
            done, sessions = read(log, **choice)
            assert done == wanted, choice
            events = load_events(log, columns=choice.get("columns"))
            assert_same(sessions, Sessions.from_log(events, choice.get("vocabulary")))
    assert len(read.maps) == len(choices)


def test_same_contents_with_another_separator_miss(log: Path, read: Reader) -> None:
    read.does(log)
    shutil.copy(log, log.with_name("log.csv"))
    log.with_name("link.csv").symlink_to(log)
    for name in ("log.csv", "link.csv"):
        with pytest.raises(DataError, match="no column 'SessionId'"):
            read(log.with_name(name))


def test_another_version_misses(log: Path, read: Reader, monkeypatch: pytest.MonkeyPatch) -> None:
    read.does(log)
    for name, value in (("__version__", "99"), ("FORMAT_VERSION", 99)):
        monkeypatch.setattr(session_cache, name, value)
        assert read.does(log) == "written"


def edited(path: Path) -> None:
    """Another item of as many digits, in the same file, with the same time as before."""
    stat = path.stat()
    with open(path, "rb+") as file:
        file.seek(ROWS.index("30"))
        file.write(b"90")
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert (path.stat().st_mtime_ns, path.stat().st_size) == (stat.st_mtime_ns, stat.st_size)


def replaced(path: Path) -> None:
    path.with_name("new").write_text(ROWS.replace("30", "90", 1))
    os.replace(path.with_name("new"), path)


@pytest.mark.parametrize("change", [edited, replaced])
def test_changed_file_misses(change: Callable[[Path], None], log: Path, read: Reader) -> None:
    read.does(log)
    time.sleep(0.02)  # more than a tick of the system's clock
    change(log)
    done, sessions = read(log)
    assert done == "written"
    assert sessions.items.item_ids.to_pylist() == [70, 90, 50, 30]


@pytest.mark.parametrize(("age_s", "n_records"), [(0.0, 0), (1.5, 0), (3.0, 1)])
def test_digest_of_a_file_that_has_just_changed_is_not_remembered(
    age_s: float, n_records: int, log: Path, read: Reader, clock: Clock
) -> None:
    """Within a tick of the file system's clock a change would not show."""
    clock.ahead_s = age_s
    assert read.does(log) == "written"
    assert len(list((read.cache / "files").iterdir())) == n_records
    assert read.does(log) == "mapped"


def test_file_that_changes_while_it_is_read_is_not_kept(
    log: Path, read: Reader, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    load = session_cache.load_sessions

    def meanwhile(path: Any, **options: Any) -> Sessions:
        time.sleep(0.02)
        edited(log)
        return load(path, **options)

    monkeypatch.setattr(session_cache, "load_sessions", meanwhile)
    done, sessions = read(log)
    assert (done, sessions.items.item_ids.to_pylist()) == ("read", [70, 90, 50, 30])
    assert "log.tsv was changed while it was read, so the cache does not keep it" in caplog.text
    assert not read.maps


# --- what is not kept ---


def test_pickles_are_never_kept(log: Path, read: Reader, tmp_path: Path) -> None:
    frame = pd.read_csv(log, sep="\t")
    frame.to_pickle(tmp_path / "frame.pickle")
    shutil.copy(tmp_path / "frame.pickle", tmp_path / "frame.tsv")
    (tmp_path / "frame.tsv.gz").write_bytes(gzip.compress((tmp_path / "frame.pickle").read_bytes()))
    for name in ("frame.pickle", "frame.tsv", "frame.tsv.gz"):
        for _ in range(2):
            assert read.does(tmp_path / name, trust_pickle=True) == "read"
        with pytest.raises(DataError, match="is a pickle"):
            read(tmp_path / name)
    assert not read.cache.exists()
    assert read.does(log, trust_pickle=True) == "written"
    shutil.copy(log, tmp_path / "log.pkl")  # is read as a pickle, whatever is in it
    with pytest.raises(DataError, match="is a pickle"):
        read(tmp_path / "log.pkl")


def test_session_map_is_opened_and_not_kept(log: Path, read: Reader, tmp_path: Path) -> None:
    write_session_map(Sessions.from_log(load_events(log)), tmp_path / "log.sessions")
    done, sessions = read(tmp_path / "log.sessions")
    assert (done, sessions.source) == ("read", str(tmp_path / "log.sessions"))
    assert read(tmp_path / "log.sessions", vocabulary=Vocabulary([30]))[1].n_events == 2
    assert not read.cache.exists()


@pytest.mark.skipif(not os.path.exists("/dev/null"), reason="needs /dev/null")
def test_what_is_no_regular_file_is_left_to_the_reader(read: Reader) -> None:
    """Looking at a pipe would take its bytes away."""
    with pytest.raises(DataError, match="/dev/null is empty"):
        read("/dev/null")
    assert not read.cache.exists()


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("none.tsv", None, "there is no file"),
        ("empty.tsv", b"", "is empty"),
        ("damaged.tsv.gz", gzip.compress(ROWS.encode())[:30], "is a damaged gzip file"),
        ("head.tsv.gz", b"\x1f\x8b", "is a damaged gzip file"),
        ("rows.tsv", b"SessionId\tItemId\tTime\n1\t2\tx\n", "Time is 'x' in row 1"),
    ],
    ids=["none", "empty", "damaged", "head", "rows"],  # a gzip file holds the time, and ids must not
)
def test_wrong_log_has_the_message_it_has_without_a_cache(
    name: str, content: bytes | None, message: str, read: Reader, tmp_path: Path
) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    for cache in (None, read.cache):
        with pytest.raises(DataError, match=message):
            cached_sessions(tmp_path / name, cache=cache)
    assert not read.cache.exists() or not read.maps


# --- a cache that is damaged, full or locked ---


@pytest.mark.parametrize("name", ["item_idx.npy", "item_ids.arrow", "header.json"])
@pytest.mark.parametrize("damage", ["cut", "lost"])
def test_damaged_map_is_made_anew(
    name: str, damage: str, log: Path, read: Reader, caplog: pytest.LogCaptureFixture
) -> None:
    read.does(log)
    part = read.maps[0] / name
    if damage == "cut":
        os.truncate(part, part.stat().st_size - 1)
    else:
        part.unlink()
    done, sessions = read(log)
    assert done == "written"
    assert_same(sessions, Sessions.from_log(load_events(log)))
    assert f"{read.maps[0].name} is " in caplog.text
    assert read.does(log) == "mapped"
    assert len(read.maps) == 1
    open_session_map(read.maps[0], verify=True)


@pytest.mark.parametrize("content", [b"", b"{", b"[1]", b'{"path": "x"}', b"\xff"])
def test_damaged_record_means_that_the_file_is_read_again(content: bytes, log: Path, read: Reader) -> None:
    read.does(log)
    (record,) = (read.cache / "files").iterdir()
    whole = record.read_bytes()
    record.write_bytes(content)
    assert read.does(log) == "mapped"
    assert record.read_bytes() == whole
    assert list((read.cache / "files").iterdir()) == [record]


@pytest.mark.parametrize("name", ["file", "file/cache"])
def test_cache_that_cannot_be_written_is_found_before_the_log_is_read(
    name: str, log: Path, tmp_path: Path, opened: list[str]
) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match=rf"cannot write to the cache .*{name}: Not a directory. Give --cache another"):
        cached_sessions(log, cache=tmp_path / name)
    assert opened.count(str(log)) == 2  # to see that it is no pickle


def test_full_disk_does_not_lose_the_run(
    log: Path, read: Reader, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    done, sessions = read(log)
    assert done == "read"
    assert_same(sessions, Sessions.from_log(load_events(log)))
    assert "No space left on device. Free some space, or give another path. This run goes on without" in caplog.text
    assert not read.maps


# --- two programs ---

READ = """
import sys, time, os
from pathlib import Path
from gru4rec.data import session_cache
from gru4rec.data.session_map import load_sessions

def slowly(*arguments, **options):
    sessions = load_sessions(*arguments, **options)
    Path(sys.argv[3]).touch()
    while not all(os.path.exists(path) for path in sys.argv[4:]):
        time.sleep(0.001)
    return sessions

session_cache.load_sessions = slowly
sessions = session_cache.cached_sessions(sys.argv[1], cache=Path(sys.argv[2]), tell=print)
print(type(sessions.item_idx.base).__name__, sessions.item_idx.sum())
"""


def test_two_programs_that_miss_at_once_both_get_the_map(read: Reader, tmp_path: Path) -> None:
    """Each waits, before it writes, until the other has read the log."""
    log = GOLDEN / "train.tsv"
    marks = [str(tmp_path / name) for name in "ab"]
    programs = [
        subprocess.Popen(
            [sys.executable, "-c", READ, str(log), str(read.cache), mark, *marks],
            cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )
        for mark in marks
    ]  # fmt: skip
    expected = Sessions.from_log(load_events(log))
    for program in programs:
        stdout, stderr = program.communicate(timeout=60)
        assert stderr == ""
        assert stdout.splitlines()[0].startswith(f"{log}: written to the cache")
        assert stdout.splitlines()[1] == f"memmap {expected.item_idx.sum()}"
    assert len(read.maps) == 1
    assert_same(cached_sessions(log, cache=read.cache), expected)
