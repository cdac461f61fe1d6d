"""The lane schedule, for any session lengths and batch size, against a slow lane-by-lane loop."""

from __future__ import annotations

import dataclasses
import errno
import os
import tempfile
import tracemalloc
from pathlib import Path
from typing import IO

import numpy as np
import pytest
from conftest import make_sessions
from hypothesis import given
from hypothesis import strategies as st

from gru4rec.data import batches as batches_module
from gru4rec.data.batches import LaneSchedule, SessionDataIterator
from gru4rec.data.negatives import SampleStore
from gru4rec.data.sessions import Sessions
from gru4rec.errors import ConfigError, DataError

lengths_lists = st.lists(st.integers(1, 9), min_size=1, max_size=40).filter(lambda lengths: max(lengths) >= 2)


def numbered_sessions(lengths: list[int]) -> list[list[int]]:
    """Sessions in which every event has an item of its own: item = place in the log."""
    ends = np.cumsum(lengths)
    return [list(range(end - length, end)) for end, length in zip(ends, lengths, strict=True)]


def slow_lanes(lists: list[list[int]], batch_size: int) -> list[list[tuple[int, int, int, bool]]]:
    """Steps of (lane, input, target, reset), one lane and one step at a time."""
    waiting = [events for events in lists if len(events) > 1]
    lanes: list[list[int]] = [waiting.pop(0) for _ in range(min(batch_size, len(waiting)))]
    place = [0] * len(lanes)
    steps = []
    while any(lanes):
        step = []
        for lane, events in enumerate(lanes):
            if events:
                step.append((lane, events[place[lane]], events[place[lane] + 1], place[lane] == 0))
                place[lane] += 1
        for lane, events in enumerate(lanes):
            if events and place[lane] + 1 == len(events):
                lanes[lane], place[lane] = (waiting.pop(0) if waiting else []), 0
        steps.append(step)
    return steps


def assert_flat_arrays_equal_slow_loop(schedule: LaneSchedule, lists: list[list[int]], batch_size: int) -> None:
    steps = slow_lanes(lists, batch_size)
    pairs = [pair for step in steps for pair in step]
    assert schedule.lane_P.tolist() == [lane for lane, _, _, _ in pairs]
    assert schedule.position_P.tolist() == [event for _, event, _, _ in pairs]  # items are numbered along the log
    assert schedule.resets_P.tolist() == [reset for _, _, _, reset in pairs]
    assert schedule.n_active_T.tolist() == [len(step) for step in steps]
    assert schedule.ends_T.tolist() == np.cumsum([len(step) for step in steps]).tolist()
    assert (schedule.n_steps, schedule.n_lanes) == (len(steps), len(steps[0]))


@given(lengths_lists, st.integers(1, 12), st.sampled_from([1, 5, 1 << 16]), st.sampled_from([1, 3, 1 << 17]))
def test_iterator_equals_slow_lane_by_lane_loop(
    lengths: list[int], batch_size: int, block_pairs: int, sessions_at_once: int
) -> None:
    lists = numbered_sessions(lengths)
    with pytest.MonkeyPatch.context() as patch:  # small blocks, so that a log has several
        patch.setattr(batches_module, "_BLOCK_PAIRS", block_pairs)
        patch.setattr(batches_module, "_SESSIONS_AT_ONCE", sessions_at_once)
        batches = SessionDataIterator(make_sessions(lists), batch_size=batch_size)
        found = [
            list(zip(*(part.tolist() for part in (b.lanes, b.input_idx, b.target_idx, b.resets)), strict=True))
            for b in batches
        ]
    assert found == slow_lanes(lists, batch_size)
    assert_flat_arrays_equal_slow_loop(batches.schedule, lists, batch_size)


@pytest.mark.parametrize("batch_size", [1, 2, 32])
def test_one_very_long_session_among_short_ones(batch_size: int) -> None:
    lists = numbered_sessions([2, 3, 100_000, 2, 1, 5, *[2] * 50])
    assert_flat_arrays_equal_slow_loop(LaneSchedule.build(make_sessions(lists), batch_size), lists, batch_size)


@given(lengths_lists, st.integers(1, 12))
def test_every_event_but_a_sessions_first_is_a_target_once_in_order(lengths: list[int], batch_size: int) -> None:
    lists = numbered_sessions(lengths)
    firsts = {events[0] for events in lists}
    batches = list(SessionDataIterator(make_sessions(lists), batch_size=batch_size))
    targets = [item for batch in batches for item in batch.target_idx.tolist()]
    assert sorted(targets) == sorted({item for events in lists for item in events} - firsts)
    for batch in batches:
        # items are numbered along the log, so "the next event of the same session" is "one more"
        np.testing.assert_array_equal(batch.target_idx, batch.input_idx + 1)
        np.testing.assert_array_equal(batch.resets, [item in firsts for item in batch.input_idx])
    when = {item: step for step, batch in enumerate(batches) for item in batch.target_idx.tolist()}
    for events in lists:
        times = [when[item] for item in events[1:]]
        assert times == list(range(times[0], times[0] + len(times))) if times else True


@given(lengths_lists, st.integers(1, 12))
def test_lanes_are_empty_only_at_the_end(lengths: list[int], batch_size: int) -> None:
    schedule = LaneSchedule.build(make_sessions(numbered_sessions(lengths)), batch_size)
    n_usable = sum(length > 1 for length in lengths)
    assert schedule.n_lanes == min(batch_size, n_usable)
    assert schedule.n_active_T[0] == schedule.n_lanes
    assert (np.diff(schedule.n_active_T) <= 0).all()
    assert len(schedule.position_P) == schedule.ends_T[-1] == sum(length - 1 for length in lengths)


@given(lengths_lists, st.integers(2, 12))
def test_without_samples_training_ends_where_one_lane_is_left(lengths: list[int], batch_size: int) -> None:
    sessions = make_sessions(numbered_sessions(lengths))
    store = SampleStore(sessions.support(), n_sample=0, sample_alpha=0.5, rng=np.random.default_rng(0))
    expected = [step for step in slow_lanes(numbered_sessions(lengths), batch_size) if len(step) >= 2]
    if not expected:
        with pytest.raises(DataError, match="n_sample=0 leaves no negative"):
            SessionDataIterator(sessions, batch_size=batch_size, negatives=store)
        return
    batches = SessionDataIterator(sessions, batch_size=batch_size, negatives=store)
    assert [batch.input_idx.tolist() for batch in batches] == [[event[1] for event in step] for step in expected]
    assert batches.n_events == sum(map(len, expected))


def test_second_epoch_is_the_first_again() -> None:
    batches = SessionDataIterator(make_sessions([[0, 1, 2], [3, 4], [5, 6, 7]]), batch_size=2)
    first, second = ([batch.input_idx.tolist() for batch in batches] for _ in range(2))
    assert first == second == [[0, 3], [1, 5], [6]]


def test_sessions_of_one_event_only_are_refused() -> None:
    with pytest.raises(DataError, match="nothing to predict"):
        LaneSchedule.build(make_sessions([[0], [1]]), 2)


def test_batch_size_zero_is_refused() -> None:
    with pytest.raises(ConfigError, match="batch_size=0"):
        LaneSchedule.build(make_sessions([[0, 1]]), 0)


def test_memory_follows_the_log_whatever_one_long_session_does() -> None:
    """A bot of 300,000 clicks beside 2,000 short sessions, 512 lanes: a table of steps x lanes would take 1 GB."""
    sessions = make_sessions([[0] * 300_000, *[[0, 0, 0]] * 2_000], 1)
    tracemalloc.start()
    schedule = LaneSchedule.build(sessions, 512)
    kept_bytes, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert schedule.n_steps == 299_999
    assert sum(part.nbytes for part in vars(schedule).values()) == 7 * sessions.n_targets + 8 * 512
    assert kept_bytes < 8 * sessions.n_targets
    assert peak_bytes < kept_bytes + 4_000_000


def test_building_needs_little_more_memory_than_the_schedule_itself() -> None:
    lengths = np.random.default_rng(0).integers(1, 9, size=400_000)
    sessions = make_sessions([[0]], 1)
    offsets = np.r_[0, np.cumsum(lengths)]
    sessions = dataclasses.replace(sessions, item_idx=np.zeros(offsets[-1], dtype=np.int32), offsets=offsets)
    tracemalloc.start()
    LaneSchedule.build(sessions, 32)
    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak_bytes < 7 * sessions.n_targets + 16_000_000


def test_lanes_beyond_16_bits_are_told_apart() -> None:
    sessions = make_sessions([[0, 0]] * 65_537, 1)
    assert LaneSchedule.build(sessions, 65_536).lane_P.dtype == np.uint16
    lanes = LaneSchedule.build(sessions, 65_537).lane_P
    assert lanes.dtype == np.int32
    np.testing.assert_array_equal(lanes, np.arange(65_537))


def test_positions_beyond_31_bits_fit() -> None:
    class HugeLog(Sessions):
        """The last two sessions of a log; the others are only counted."""

        n_events = 2**31 + 2
        n_targets = 2
        n_single_event_sessions = 0

    one = make_sessions([[0]])
    offsets = np.array([2**31 - 2, 2**31, 2**31 + 2])
    schedule = LaneSchedule.build(HugeLog(one.item_idx, offsets, np.arange(2), one.items, "huge"), 1)
    assert schedule.position_P.tolist() == [2**31 - 2, 2**31]


@pytest.fixture
def temporary_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where temporary files go, with a schedule of any size in one."""
    monkeypatch.setattr(batches_module, "_MAX_BYTES_IN_MEMORY", 0)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


@pytest.mark.parametrize("batch_size", [1, 3, 12])
def test_large_schedule_in_temporary_files_is_the_same_and_leaves_none_behind(
    temporary_folder: Path, batch_size: int
) -> None:
    lists = numbered_sessions([3, 1, 9, 2, 2, 7, 4, 1, 5, 2])
    batches = SessionDataIterator(make_sessions(lists), batch_size=batch_size)
    schedule = batches.schedule
    for part in (schedule.position_P, schedule.lane_P, schedule.resets_P):
        assert isinstance(part.base, np.memmap)
        assert type(part) is np.ndarray  # slices of a memmap cost microseconds
    assert os.name != "posix" or not list(temporary_folder.iterdir())
    assert_flat_arrays_equal_slow_loop(schedule, lists, batch_size)
    found = [list(zip(b.lanes.tolist(), b.input_idx.tolist(), strict=True)) for b in batches]
    assert found == [[event[:2] for event in step] for step in slow_lanes(lists, batch_size)]
    del batches, schedule, part
    assert not list(temporary_folder.iterdir())


def test_missing_temporary_folder_is_named(temporary_folder: Path) -> None:
    temporary_folder.rmdir()
    with pytest.raises(DataError, match=rf"temporary folder {temporary_folder}.*or name another folder in TMPDIR"):
        LaneSchedule.build(make_sessions([[0, 1]]), 1)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a disk that is always full")
def test_full_disk_is_said_before_anything_is_laid_out(temporary_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def on_full_disk(**_: object) -> IO[bytes]:
        return open("/dev/full", "r+b")

    monkeypatch.setattr(tempfile, "TemporaryFile", on_full_disk)
    with pytest.raises(DataError, match=r"no room for the 0.0 GB .* of 2 events .*No space left on device") as raised:
        LaneSchedule.build(make_sessions([[0, 1, 2]]), 1)
    assert isinstance(raised.value.__cause__, OSError)
    assert raised.value.__cause__.errno == errno.ENOSPC


def test_item_indices_in_a_read_only_memory_map_are_read_in_place(tmp_path: Path) -> None:
    lists = [[0, 1, 2], [3, 4], [5, 6, 7, 8]]
    plain = make_sessions(lists)
    plain.item_idx.tofile(tmp_path / "items")
    mapped = dataclasses.replace(plain, item_idx=np.memmap(tmp_path / "items", dtype=np.int32, mode="r"))
    for expected, batch in zip(*(SessionDataIterator(s, batch_size=2) for s in (plain, mapped)), strict=True):
        assert type(batch.input_idx) is type(batch.target_idx) is np.ndarray
        assert batch.input_idx.flags.writeable, "torch warns of arrays that it could not write to"
        np.testing.assert_array_equal(batch.input_idx, expected.input_idx)
        np.testing.assert_array_equal(batch.target_idx, expected.target_idx)
