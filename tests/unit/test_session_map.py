"""Session maps: the same sessions as were written, whole or not at all, and never read where mapping will do."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from conftest import ROOT, make_sessions

from gru4rec.api import GRU4Rec, batch_eval
from gru4rec.data.events import load_events
from gru4rec.data.session_map import HEADER, is_session_map, load_sessions, open_session_map, write_session_map
from gru4rec.data.sessions import Sessions
from gru4rec.data.vocabulary import Vocabulary
from gru4rec.errors import DataError

ARRAYS = ("item_idx", "offsets", "start_time")
COUNTS = ("n_unknown_events", "n_unknown_items", "n_lost_sessions", "source")
FILES = {"header.json", "item_idx.npy", "offsets.npy", "start_time.npy", "item_support.npy", "item_ids.arrow"}


def from_columns(session: list[Any], item: list[Any], time: list[Any], known: list[Any] | None = None) -> Sessions:
    log = load_events(pa.table({"SessionId": session, "ItemId": item, "Time": time}))
    return Sessions.from_log(log, None if known is None else Vocabulary(known))


def assert_same(one: Sessions, other: Sessions) -> None:
    """The same bits, types and counts."""
    for name in ARRAYS:
        left, right = getattr(one, name), getattr(other, name)
        assert left.dtype == right.dtype
        np.testing.assert_array_equal(left, right)
    assert one.items.item_ids.equals(other.items.item_ids)
    assert [getattr(one, name) for name in COUNTS] == [getattr(other, name) for name in COUNTS]
    np.testing.assert_array_equal(one.support(), other.support())
    assert one.report() == other.report()


@pytest.fixture
def small() -> Sessions:
    return from_columns([1, 1, 2, 2, 2], [70, 30, 50, 30, 70], [1, 2, 3, 4, 5])


@pytest.fixture
def folder(small: Sessions, tmp_path: Path) -> Path:
    write_session_map(small, tmp_path / "small.sessions")
    return tmp_path / "small.sessions"


# --- the same sessions ---


@pytest.mark.parametrize("times", [[5, 3, 9, 9, 7, -4], [0.5, 0.25, 1e300, 9.0, 7.0, -0.5]], ids=["int", "float"])
@pytest.mark.parametrize("items", [[7, -3, 2**63 - 1, 7, 0, -(2**63)], ["a", "é", "日本", "a", "007", "7"]])
@pytest.mark.parametrize("known", ["all", "some"])
def test_session_map_opens_as_it_was_written(items: list[Any], times: list[Any], known: str, tmp_path: Path) -> None:
    sessions = from_columns([2, 1, 2, 1, 3, 3], items, times, None if known == "all" else [*items[:2], items[4]])
    assert (sessions.n_unknown_events > 0) == (known == "some")
    write_session_map(sessions, tmp_path / "a.sessions")
    for verify in (False, True):
        opened = open_session_map(tmp_path / "a.sessions", verify=verify)
        assert_same(opened, sessions)
        assert not opened.support().flags.writeable
        for name in ARRAYS:
            array = getattr(opened, name)
            assert type(array) is np.ndarray
            assert isinstance(array.base, np.memmap)
            assert not array.flags.writeable
    assert {path.name for path in (tmp_path / "a.sessions").iterdir()} == FILES
    assert [path.name for path in tmp_path.iterdir()] == ["a.sessions"]


def test_session_map_written_again_changes_nothing(small: Sessions, folder: Path) -> None:
    before = {path.name: path.stat().st_ino for path in folder.iterdir()}
    write_session_map(small, folder)
    assert {path.name: path.stat().st_ino for path in folder.iterdir()} == before
    assert len(list(folder.parent.iterdir())) == 1


def test_session_map_is_not_written_over_a_damaged_one(small: Sessions, folder: Path) -> None:
    cut(folder, "item_idx.npy")
    with pytest.raises(DataError, match=r"small.sessions is damaged: item_idx.npy has .*Delete the folder"):
        write_session_map(small, folder)


def test_session_map_is_written_from_a_map(folder: Path, small: Sessions) -> None:
    write_session_map(open_session_map(folder), folder.with_name("copy"))
    assert_same(open_session_map(folder.with_name("copy")), small)


@pytest.mark.parametrize("engine", ["plain", "fast"])
def test_session_map_trains_to_the_same_bits(golden_train: Sessions, engine: Any, tmp_path: Path) -> None:
    write_session_map(golden_train, tmp_path / "a.sessions")
    settings: dict[str, Any] = {"layers": [16], "n_epochs": 2, "batch_size": 16, "n_sample": 32, "seed": 7}
    weights, losses = [], []
    for data in (golden_train, open_session_map(tmp_path / "a.sessions"), tmp_path / "a.sessions"):
        gru = GRU4Rec(device="cpu", logq=1.0, **settings)
        gru.fit(data, engine=engine, on_epoch=lambda report: losses.append(report.loss))
        weights.append(gru.bundle().weights)
    assert losses[:2] == losses[2:4] == losses[4:]
    for other in weights[1:]:
        assert all(np.array_equal(other[name], weight) for name, weight in weights[0].items())


# --- another vocabulary ---


def test_sessions_with_their_own_vocabulary_stay_where_they_are(folder: Path) -> None:
    sessions = open_session_map(folder)
    vocabulary = Vocabulary([70, 30, 50])
    again = sessions.with_vocabulary(vocabulary)
    assert again.items is vocabulary
    assert again.item_idx is sessions.item_idx


def test_sessions_with_another_vocabulary_are_those_of_the_log() -> None:
    """First events are known, so that starts do not move; an id of the vocabulary is unused."""
    columns = [1, 1, 1, 2, 2, 3, 3, 4], ["a", "x", "b", "b", "y", "x", "x", "a"], [5, 6, 7, 1, 2, 3, 4, 9]
    for known in (["b", "a"], ["unused", "a", "b"], ["a", "b", "x", "y"]):
        mapped = from_columns(*columns).with_vocabulary(Vocabulary(known))
        assert_same(mapped, from_columns(*columns, known))
    mapped = from_columns(*columns).with_vocabulary(Vocabulary(["b", "a"]))
    assert mapped.item_idx.tolist() == [0, 1, 0, 1]  # b | a b | a
    assert mapped.start_time.tolist() == [1, 5, 9]
    assert (mapped.n_unknown_events, mapped.n_unknown_items, mapped.n_lost_sessions) == (4, 2, 1)


def test_items_that_never_occur_are_no_unknown_items() -> None:
    sessions = from_columns([1, 1], ["a", "b"], [1, 2], ["unused", "a", "b"])
    assert sessions.with_vocabulary(Vocabulary(["a"])).n_unknown_items == 1


def test_sessions_keep_the_start_of_a_first_event_that_is_left_out() -> None:
    mapped = from_columns([1, 1, 2], ["x", "a", "a"], [1, 9, 5]).with_vocabulary(Vocabulary(["a"]))
    assert mapped.start_time.tolist() == [1, 5]


def test_sessions_that_lack_events_do_not_change_their_vocabulary() -> None:
    sessions = from_columns([1, 1], ["a", "b"], [1, 2], ["a"])
    with pytest.raises(DataError, match=r"made for another model's items, and 1 events were left out.*Give the log"):
        sessions.with_vocabulary(Vocabulary(["a", "b"]))


def test_sessions_of_nothing_known_raise(small: Sessions) -> None:
    with pytest.raises(DataError, match=r"none of the 3 items of .* is in the training log"):
        small.with_vocabulary(Vocabulary([1]))


def test_batch_eval_of_a_map_is_that_of_its_log(golden_train: Sessions, golden_test: Sessions, tmp_path: Path) -> None:
    """The map has the test log's own vocabulary, so it is encoded anew."""
    log = load_events(ROOT / "tests" / "parity" / "golden" / "test.tsv")
    write_session_map(Sessions.from_log(log), tmp_path / "test.sessions")
    assert not Sessions.from_log(log).items.same_as(golden_train.items)
    gru = GRU4Rec(device="cpu", layers=[8], n_epochs=1, batch_size=16, n_sample=16, seed=1).fit(golden_train)
    assert batch_eval(gru, tmp_path / "test.sessions", [5]) == batch_eval(gru, golden_test, [5])


def test_loaded_map_is_called_as_the_caller_does(folder: Path) -> None:
    assert load_sessions(str(folder)).source == str(folder)
    assert open_session_map(folder).source == "the pyarrow table"


# --- mapped, not read ---


def resident_kib(path: Path) -> int:
    """KiB of a file that this process has touched through its maps of it."""
    maps = Path("/proc/self/smaps").read_text()
    pattern = rf"^[0-9a-f]+-[0-9a-f]+ [^\n]*{re.escape(str(path))}\n(?:\w+:.*\n)*?Rss: +(\d+) kB"
    return sum(map(int, re.findall(pattern, maps, re.MULTILINE)))


class FirstStepError(Exception):
    pass


class StopAtFirstStep:
    """Negatives that end training where the first step asks for them."""

    n_sample = 8

    def next(self) -> np.ndarray:
        raise FirstStepError


needs_smaps = pytest.mark.skipif(not os.path.exists("/proc/self/smaps"), reason="needs /proc/self/smaps")


@needs_smaps
def test_session_map_is_not_read_before_the_first_step(tmp_path: Path) -> None:
    n_events = 4_000_000  # 16 MB, of which training reads 2 x 128 KiB first, and the system maps some more around them
    path = tmp_path / "large.sessions"
    items = Vocabulary(np.arange(50))
    item_idx = np.arange(n_events, dtype=np.int32) % 50
    offsets = np.array([0, n_events // 2, n_events])
    write_session_map(Sessions(item_idx, offsets, np.arange(2), items, "a large log"), path)
    sessions = open_session_map(path)
    assert resident_kib(path / "item_idx.npy") < 200
    gru = GRU4Rec(device="cpu", layers=[4], batch_size=2, n_epochs=1, n_sample=8)
    with pytest.raises(FirstStepError):
        gru.fit(sessions, negatives=StopAtFirstStep())
    assert 200 < resident_kib(path / "item_idx.npy") < 8_000
    assert sessions.item_idx.sum() == item_idx.sum()
    assert resident_kib(path / "item_idx.npy") > 15_000  # the measure sees what is read


# --- whole or not at all ---

WRITER = """
import os, sys, time
import numpy as np
from pathlib import Path
from gru4rec.data.session_map import write_session_map
from gru4rec.data.sessions import Sessions
from gru4rec.data.vocabulary import Vocabulary

def write(folder, n_events=1_000_000):
    item_idx = np.arange(n_events, dtype=np.int32) % 1000
    offsets, items = np.arange(0, n_events + 1, 4), Vocabulary(np.arange(1000))
    write_session_map(Sessions(item_idx, offsets, np.arange(n_events // 4), items, "x"), folder)
"""


def start(code: str, *arguments: Any) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", WRITER + code, *map(str, arguments)]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_session_map_of_a_killed_writer_is_never_seen(tmp_path: Path) -> None:
    """A real process, killed by the system wherever it waits for the disk: at every file, and before the name."""
    code = """
n_left = int(sys.argv[2])
def fsync(handle, real=os.fsync):
    global n_left
    n_left -= 1
    if n_left < 0:
        os.kill(os.getpid(), 9)
    real(handle)
os.fsync = fsync
write(sys.argv[1], 4000)
"""
    for n_before in range(9):
        folder = tmp_path / f"{n_before}.sessions"
        process = start(code, folder, n_before)
        process.communicate(timeout=60)
        if folder.exists():  # named: the last wait is for the name itself
            assert_whole(folder, 4000)
            assert n_before == 7
            break
        assert process.returncode == -signal.SIGKILL
        assert len(list(tmp_path.glob(".sessions-*.part"))) == n_before + 1
    else:
        pytest.fail("never written")
    write_session_map(make_sessions([[0, 1]]), tmp_path / "0.sessions")
    assert open_session_map(tmp_path / "0.sessions").n_events == 2


def assert_whole(folder: Path, n_events: int) -> None:
    assert open_session_map(folder, verify=True).n_events == n_events


def test_session_map_of_two_writers_at_once_is_whole(tmp_path: Path) -> None:
    code = """
while not os.path.exists(sys.argv[1]):
    time.sleep(0.001)
for place in range(6):
    write(f"{sys.argv[1]}-{place}.sessions")
"""
    writers = [start(code, tmp_path / "go") for _ in range(2)]
    time.sleep(1)
    (tmp_path / "go").touch()
    for writer in writers:
        _, stderr = writer.communicate(timeout=120)
        assert (writer.returncode, stderr) == (0, "")
    for place in range(6):
        assert_whole(tmp_path / f"go-{place}.sessions", 1_000_000)
    assert not list(tmp_path.glob(".*"))


def test_session_map_of_the_slower_writer_gives_way(
    small: Sessions, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other writer takes the name just before this one would."""
    rename = Path.rename

    def overtaken(self: Path, target: Path) -> Path:
        monkeypatch.setattr(Path, "rename", rename)
        write_session_map(other, target)
        return rename(self, target)

    for name, other in (("same", small), ("other", make_sessions([[0, 1, 0]]))):
        monkeypatch.setattr(Path, "rename", overtaken)
        if name == "same":
            write_session_map(small, tmp_path / name)
        else:
            with pytest.raises(DataError, match=r"cannot write the session map .*: another one is there. Delete it"):
                write_session_map(small, tmp_path / name)
        assert_same(open_session_map(tmp_path / name), other)
    assert {path.name for path in tmp_path.iterdir()} == {"same", "other"}


def test_leftovers_of_killed_writers_go_after_a_day(small: Sessions, tmp_path: Path) -> None:
    for name, age_s in (("old", 25 * 3600), ("new", 3600)):
        partial = tmp_path / f".sessions-{name.encode().hex():0>16}.part"
        partial.mkdir()
        (partial / "item_idx.npy").touch()
        os.utime(partial, (time.time() - age_s,) * 2)
    write_session_map(small, tmp_path / "a.sessions")
    assert sorted(path.name for path in tmp_path.iterdir()) == [f".sessions-{b'new'.hex():0>16}.part", "a.sessions"]


def test_session_map_on_a_full_disk_leaves_nothing(tmp_path: Path) -> None:
    code = """
import resource
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
from gru4rec.errors import DataError
try:
    write(sys.argv[1])
except DataError as error:
    print(error)
"""
    stdout, stderr = start(code, tmp_path / "a.sessions").communicate(timeout=60)
    expected = f"cannot write the session map {tmp_path / 'a.sessions'}: File too large. Free some space, or give"
    assert (stdout.startswith(expected), stderr) == (True, ""), stdout
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("none/a.sessions", r"cannot write .*none/a.sessions: No such file or directory. Make the folder .*none, or"),
        ("file/a.sessions", r"cannot write .*file/a.sessions: Not a directory. Check the folder .*file, or"),
        ("file", r"cannot write .*file: something else is there. Give another path"),
        ("empty", r"cannot write .*empty: something else is there. Give another path"),
    ],
)
def test_session_map_that_cannot_be_written_raises(name: str, message: str, small: Sessions, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=message):
        write_session_map(small, tmp_path / name)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["empty", "file"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"item_idx": np.array([0, 3, 1], dtype=np.int32)}, "an item index from 0 to 3 is outside of 0 to 2"),
        ({"item_idx": np.array([0, -1, 1], dtype=np.int32)}, "an item index from -1 to 1 is outside of 0 to 2"),
        ({"offsets": np.array([0, 2])}, "offsets.npy does not lead from 0 to 3"),
        ({"start_time": np.array([0, 1])}, r"start_time.npy holds int64 of shape \(2,\), and not 1 numbers"),
        ({"item_support": np.array([1, 1, 0])}, "item_support.npy does not add up to 3 events"),
    ],
)
def test_session_map_of_wrong_sessions_is_not_written(change: dict[str, Any], message: str, tmp_path: Path) -> None:
    good = {"item_idx": np.array([0, 1, 2], dtype=np.int32), "offsets": np.array([0, 3]), "start_time": np.array([0])}
    sessions = Sessions(**{**good, **change}, items=Vocabulary([7, 8, 9]), source="mine")
    with pytest.raises(DataError, match=f"the sessions of mine do not fit together: {message}"):
        write_session_map(sessions, tmp_path / "a.sessions")
    assert not list(tmp_path.iterdir())


# --- what is no map, or no longer ---


def rewritten(folder: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    """Change the header and make its checksum fit again."""
    header = json.loads((folder / HEADER).read_text())
    del header["header_checksum"]
    change(header)
    header["header_checksum"] = zlib.crc32(json.dumps(header, sort_keys=True).encode())
    (folder / HEADER).write_text(json.dumps(header))


def flip(folder: Path, name: str, place: int) -> None:
    content = bytearray((folder / name).read_bytes())
    content[place] ^= 1
    (folder / name).write_bytes(content)


def test_rewritten_header_without_change_opens(folder: Path, small: Sessions) -> None:
    rewritten(folder, lambda header: None)
    assert_same(open_session_map(folder), small)


def cut(folder: Path, name: str) -> None:
    os.truncate(folder / name, os.path.getsize(folder / name) - 1)


DAMAGE: list[tuple[Callable[[Path], Any], str]] = [
    *[
        (lambda folder, name=name: cut(folder, name), rf"is damaged: {name} has \d+ bytes, and header.json says \d+")
        for name in sorted(FILES - {HEADER})
    ],
    *[
        (lambda folder, name=name: (folder / name).unlink(), rf"is damaged: {name} is missing")
        for name in sorted(FILES - {HEADER})
    ],
    *[
        (lambda folder, name=name: flip(folder, name, 0), rf"is damaged: {name} is not a .npy file")
        for name in sorted(FILES) if name.endswith(".npy")
    ],
    (lambda folder: flip(folder, "item_ids.arrow", 300), "is damaged: the checksum of item_ids.arrow does not fit"),
    (lambda folder: flip(folder, "item_support.npy", -24), "is damaged: item_support.npy does not add up to 5 events"),
    (lambda folder: flip(folder, "offsets.npy", -1), "is damaged: offsets.npy does not lead from 0 to 5"),
    (lambda folder: flip(folder, "offsets.npy", 128), "is damaged: offsets.npy does not lead from 0 to 5"),
    (lambda folder: cut(folder, HEADER), "is damaged: header.json is not JSON"),
    (lambda folder: flip(folder, HEADER, -4), "is damaged: the checksum of header.json does not fit"),
    (lambda folder: rewritten(folder, lambda header: header.pop("files")), "is damaged: 'files'"),
    (lambda folder: rewritten(folder, lambda header: header.update(n_events=4)),
     r"is damaged: item_idx.npy holds int32 of shape \(5,\), and not 4 numbers"),
    (lambda folder: rewritten(folder, lambda header: header.update(n_items=2)),
     r"is damaged: item_support.npy holds int64 of shape \(3,\), and not 2 numbers"),
]  # fmt: skip


@pytest.mark.parametrize(("damage", "message"), DAMAGE, ids=[message[:60] for _, message in DAMAGE])
def test_damaged_session_map_says_what_is_damaged(damage: Callable[[Path], Any], message: str, folder: Path) -> None:
    damage(folder)
    with pytest.raises(DataError, match=rf"small.sessions {message}.*Delete the folder, and write it again"):
        open_session_map(folder)


@pytest.mark.parametrize("name", ["item_idx.npy", "start_time.npy"])
def test_changed_number_is_found_by_verify(name: str, folder: Path) -> None:
    flip(folder, name, -1)
    open_session_map(folder)
    with pytest.raises(DataError, match=f"is damaged: the checksum of {name} does not fit"):
        open_session_map(folder, verify=True)


def test_wrong_index_with_its_checksum_is_found_by_verify(folder: Path) -> None:
    flip(folder, "item_idx.npy", -3)  # 0 becomes 256
    item_idx = np.load(folder / "item_idx.npy")
    assert item_idx.max() == 256
    rewritten(folder, lambda header: header["files"]["item_idx.npy"].update(crc32=zlib.crc32(item_idx.data)))
    with pytest.raises(DataError, match=r"is damaged: an item index from 0 to 256 is outside of 0 to 2"):
        open_session_map(folder, verify=True)


def test_what_is_no_session_map_says_so(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("SessionId\n")
    (tmp_path / "folder").mkdir()
    (tmp_path / "foreign").mkdir()
    (tmp_path / "foreign" / HEADER).write_text('{"format": "another"}')
    for name, message in (
        ("none", "there is no session map .*none. Check the path"),
        ("file", "file is not a session map: it is a file. Give"),
        ("folder", "folder is not a session map: it has no header.json. Give"),
        ("foreign", "foreign is not a session map: its header.json is of another program. Give"),
    ):
        assert is_session_map(tmp_path / name) == (name == "foreign")
        with pytest.raises(DataError, match=message):
            open_session_map(tmp_path / name)
    assert is_session_map(str(folder))


def test_newer_session_map_asks_for_an_upgrade(folder: Path) -> None:
    rewritten(folder, lambda header: header.update(format_version=2))
    with pytest.raises(DataError, match=r"format version 2, and this gru4rec .* reads up to 1. Upgrade"):
        open_session_map(folder)
