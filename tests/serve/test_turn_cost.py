"""What a turn costs: lines whose parts are known, and what is said of them before they are."""

from __future__ import annotations

import itertools
import random

import pytest

from gru4rec.serve.turn_cost import TurnCost


def told(cost: TurnCost, sizes: list[int], *, fixed_s: float, each_s: float) -> None:
    for n_sessions in sizes:
        cost.note(n_sessions, fixed_s + each_s * n_sessions)


def test_turn_cost_learns_a_line() -> None:
    """2 ms a turn and 1 ms a session, told in turns of 1 to 8."""
    cost = TurnCost(0.003)
    told(cost, [1, 2, 3, 4, 5, 6, 7, 8] * 20, fixed_s=0.002, each_s=0.001)
    assert cost.line == pytest.approx((0.002, 0.001), rel=1e-3)


def test_turn_cost_expects_several_to_take_as_long_as_one_by_one() -> None:
    cost = TurnCost(0.004)
    assert cost.wait_s(0, 1.0, 64) == 0
    assert cost.wait_s(10, 1.0, 64) == pytest.approx(0.04)


def test_turn_cost_first_large_turn_ends_that() -> None:
    """Expected: 4 ms alone. A turn of 13 takes 4 + 12 x 1 ms: their mean is 7 sessions and 10 ms; variance and
    covariance are 36. The line so far says 28 ms of 7 sessions, so its slope shrinks to 10 / 7 ms. Of both slopes,
    weighed 36 to 10: (36 + 10 x 10 / 7) / 46 = 1.093 ms.
    """
    cost = TurnCost(0.004)
    cost.note(13, 0.016)
    assert cost.line[1] == pytest.approx((0.036 + 10 * 0.010 / 7) / 46)
    assert cost.line[0] == pytest.approx(0.010 - 7 * cost.line[1])


def test_turn_cost_leaves_the_bad_state() -> None:
    """Few are let in while the wait seems long; turns are then small and dear, and a mean of their cost would stay.

    Alone a session takes 3.7 ms, 64 together 1.3 ms each; 50 ms hold 37 sessions. Here as many wait as are let in, half
    of them in a turn.
    """
    cost, sizes = TurnCost(0.0037), []
    for _ in range(60):
        let_in = next(n for n in itertools.count(2) if cost.wait_s(n, 1.0, 64) > 0.050)
        sizes.append(let_in // 2)
        cost.note(sizes[-1], 0.0024 + 0.0013 * sizes[-1])
    assert sizes[0] == 7
    assert 17 <= sizes[-1] <= 19


def test_turn_cost_turns_of_one_size_are_priced_as_they_are() -> None:
    """Nothing tells the parts apart; what a turn of that size takes is known all the same, and others in proportion."""
    cost = TurnCost(0.004)
    told(cost, [8] * 200, fixed_s=0.002, each_s=0.001)
    assert cost.wait_s(8, 1.0, 64) == pytest.approx(0.010, rel=1e-3)
    assert 0.010 < cost.wait_s(16, 1.0, 64) <= 0.0201
    fixed_s, each_s = cost.line
    told(cost, [8] * 200, fixed_s=0.006, each_s=0.003)  # the machine became slower
    assert cost.line == pytest.approx((3 * fixed_s, 3 * each_s), rel=1e-3)


def test_turn_cost_parts_are_never_negative() -> None:
    """Turns that get dearer by the session, and turns that get cheaper the larger they are."""
    for seconds in (lambda n: 0.001 * n**2, lambda n: 0.1 / n):
        cost = TurnCost(0.001)
        for n_sessions in [1, 2, 4, 8] * 50:
            cost.note(n_sessions, seconds(n_sessions))
            assert min(cost.line) >= 0
        assert 0 in [round(part, 12) for part in cost.line]


def test_turn_cost_noise_does_not_carry_it_away() -> None:
    """Alone for a long time, now and then two; each turn late by 1 ms on average, as on a busy machine."""
    rng, cost = random.Random(1), TurnCost(0.002)
    for _ in range(2000):
        n_sessions = 2 if rng.random() < 0.02 else 1
        cost.note(n_sessions, 0.001 + 0.001 * n_sessions + rng.expovariate(1000))
    assert 0.0003 < cost.line[1] < 0.003


def test_turn_cost_one_stall_is_forgotten() -> None:
    """A turn that stood still for a second adds a twentieth of it; 0.95 to the fiftieth of that is left later: 4 ms."""
    cost = TurnCost(0.003)
    told(cost, [1, 2] * 50, fixed_s=0.002, each_s=0.001)
    cost.note(1, 1.0)
    assert cost.wait_s(1, 1.0, 64) > 0.04
    told(cost, [1, 2] * 25, fixed_s=0.002, each_s=0.001)
    assert cost.wait_s(1, 1.0, 64) < 0.003 + 0.05 * 0.95**50 + 0.002


def test_turn_cost_nothing_expected_is_learned_from_the_first_turn() -> None:
    cost = TurnCost(0.0)
    assert cost.wait_s(100, 1.0, 64) == 0
    told(cost, [1] * 300, fixed_s=0.01, each_s=0.0)
    assert cost.wait_s(10, 1.0, 64) == pytest.approx(0.1, rel=1e-3)


def test_turn_cost_sessions_beyond_a_turn_wait_for_places() -> None:
    """64 sessions in a turn of 2 + 64 ms. 96 beyond them need 1.5 turns more; where each takes 3 turns, 4.5 more."""
    cost = TurnCost(0.003)
    told(cost, list(range(1, 65)) * 10, fixed_s=0.002, each_s=0.001)
    turn_s = 0.066
    assert cost.wait_s(64, 9.0, 64) == pytest.approx(turn_s, rel=1e-3)
    assert cost.wait_s(160, 1.0, 64) == pytest.approx(2.5 * turn_s, rel=1e-3)
    assert cost.wait_s(160, 3.0, 64) == pytest.approx(5.5 * turn_s, rel=1e-3)
