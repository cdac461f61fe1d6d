"""The lane schedule, for any session lengths and batch size, against a slow lane-by-lane loop."""

from __future__ import annotations

import numpy as np
import pytest
from conftest import make_sessions
from hypothesis import given
from hypothesis import strategies as st

from gru4rec.data.batches import LaneSchedule, SessionDataIterator
from gru4rec.data.negatives import SampleStore
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


@given(lengths_lists, st.integers(1, 12))
def test_iterator_equals_slow_lane_by_lane_loop(lengths: list[int], batch_size: int) -> None:
    lists = numbered_sessions(lengths)
    found = [
        list(zip(*(part.tolist() for part in (b.lanes, b.input_idx, b.target_idx, b.resets)), strict=True))
        for b in SessionDataIterator(make_sessions(lists), batch_size=batch_size)
    ]
    assert found == slow_lanes(lists, batch_size)


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
    """A bot of 300,000 clicks beside 2,000 short sessions, 512 lanes: a table of steps x lanes would take 1.2 GB."""
    sessions = make_sessions([[0] * 300_000, *[[0, 0, 0]] * 2_000], 1)
    schedule = LaneSchedule.build(sessions, 512)
    assert schedule.n_steps == 299_999
    n_bytes = sum(part.nbytes for part in (schedule.position_P, schedule.lane_P, schedule.ends_T))
    assert n_bytes < 32 * sessions.n_events
