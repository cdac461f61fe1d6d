"""The scoring thread, on a scorer whose every step can be watched."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable
from typing import Any

import numpy as np
import pytest
import torch

from gru4rec.data.vocabulary import Vocabulary
from gru4rec.serve.batcher import Batcher, BusyError, Task, TooLateError, Turn
from gru4rec.serve.recommender import Recommender

N_ITEMS = 5


class Counting:
    """Scores an item by how often it was clicked; waits at a gate before it reads, and fails on item 4 if told to."""

    n_items = N_ITEMS

    def __init__(self) -> None:
        self.gate = threading.Event()
        self.gate.set()
        self.steps: list[int] = []
        self.fails = False

    def start(self, n_sessions: int) -> tuple[torch.Tensor]:
        return (torch.zeros(n_sessions, N_ITEMS),)

    def advance(self, state: tuple[torch.Tensor, ...], item_idx: Any) -> tuple[torch.Tensor]:
        self.gate.wait(10)
        self.steps.append(len(item_idx))
        if self.fails and 4 in list(item_idx):
            raise RuntimeError("item 4")
        counts = state[0].clone()
        counts[torch.arange(len(item_idx)), torch.as_tensor(np.asarray(item_idx))] += 1
        return (counts,)

    def ready(self, state: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
        return state

    def score_block(self, ready: tuple[torch.Tensor, ...], start: int, stop: int) -> torch.Tensor:
        return ready[0][:, start:stop]

    def score_items(self, ready: tuple[torch.Tensor, ...], item_idx: Any) -> torch.Tensor:
        return ready[0][:, torch.as_tensor(np.asarray(item_idx))]


def recommender_of(scorer: Counting) -> Recommender:
    return Recommender(scorer, Vocabulary(np.arange(N_ITEMS)), np.array([1, 2, 3, 4, 5]))


def task(recommender: Recommender, clicks: list[int], *, wait_s: float = 10.0, state: Any = None) -> Task:
    item_idx = np.array(clicks, dtype=np.int32)
    return Task(recommender, item_idx, item_idx, recommender.filters(2), state, time.monotonic() + wait_s)


def run(talk: Callable[[Batcher, list[Turn]], Awaitable[Any]], **options: Any) -> Any:
    turns: list[Turn] = []

    async def all_of_it() -> Any:
        batcher = Batcher(on_turn=turns.append, **options)
        batcher.start()
        try:
            return await talk(batcher, turns)
        finally:
            await asyncio.to_thread(batcher.stop)

    return asyncio.run(all_of_it())


async def until(condition: Callable[[], bool]) -> None:
    for _ in range(1000):
        if condition():
            return
        await asyncio.sleep(0.005)
    raise AssertionError("it never came to be")


def test_batcher_scores_what_waits_together_and_answers_each_its_own() -> None:
    scorer = Counting()
    recommender = recommender_of(scorer)
    scorer.gate.clear()

    async def talk(batcher: Batcher, turns: list[Turn]) -> None:
        first = asyncio.create_task(batcher.score([task(recommender, [3])]))
        await until(lambda: batcher.n_waiting == 1)
        others = [
            asyncio.create_task(batcher.score([task(recommender, [n, n]), task(recommender, [])])) for n in (0, 1)
        ]
        await until(lambda: batcher.n_waiting == 5)
        scorer.gate.set()
        assert (await first)[0].found.item_ids == [3, 0]
        for n, other in enumerate(others):
            of_n, of_nothing = await other
            assert of_n.found.item_ids[0] == n
            assert of_n.found.scores[0] == 2
            assert of_n.state[0].tolist() == [[2.0 * (item == n) for item in range(N_ITEMS)]]
            assert (of_nothing.found.item_ids, of_nothing.is_popular) == ([4, 3], True)
        assert [turn.n_sessions for turn in turns] == [1, 4]
        assert scorer.steps == [1, 2, 2]
        assert batcher.n_waiting == 0

    run(talk)


def test_batcher_long_session_does_not_hold_up_a_short_one() -> None:
    scorer = Counting()
    recommender = recommender_of(scorer)
    answered: list[str] = []

    async def talk(batcher: Batcher, turns: list[Turn]) -> None:
        async def ask(name: str, clicks: list[int]) -> Any:
            (scored,) = await batcher.score([task(recommender, clicks)])
            answered.append(name)
            return scored

        scorer.gate.clear()
        long = asyncio.create_task(ask("long", [1] * 200))
        await until(lambda: batcher.n_waiting == 1)
        short = asyncio.create_task(ask("short", [2]))
        await until(lambda: batcher.n_waiting == 2)
        scorer.gate.set()
        assert (await long).found.scores[0] == 200
        assert (await short).found.scores[0] == 1
        assert answered == ["short", "long"]
        assert len(turns) == 13  # 16 clicks a turn

    run(talk)


def test_batcher_goes_on_from_a_state() -> None:
    recommender = recommender_of(Counting())

    async def talk(batcher: Batcher, turns: list[Turn]) -> None:
        state = (torch.tensor([[0.0, 5.0, 0.0, 0.0, 0.0]]),)
        scored = await batcher.score([task(recommender, [2], state=state), task(recommender, [3])])
        assert [each.found.item_ids for each in scored] == [[1, 2], [3, 0]]
        assert scored[0].found.scores == [5.0, 1.0]

    run(talk)


def test_batcher_failure_is_answered_and_the_thread_goes_on() -> None:
    scorer = Counting()
    recommender = recommender_of(scorer)
    scorer.fails = True

    async def talk(batcher: Batcher, turns: list[Turn]) -> None:
        with pytest.raises(RuntimeError, match="item 4"):
            await batcher.score([task(recommender, [4]), task(recommender, [1])])
        assert (await batcher.score([task(recommender, [1])]))[0].found.item_ids == [1, 0]
        assert batcher.n_waiting == 0

    run(talk)


def test_batcher_gives_up_what_waited_too_long() -> None:
    scorer = Counting()
    recommender = recommender_of(scorer)
    scorer.gate.clear()

    async def talk(batcher: Batcher, turns: list[Turn]) -> None:
        patient = asyncio.create_task(batcher.score([task(recommender, [3])]))
        await until(lambda: batcher.n_waiting == 1)
        hasty = asyncio.create_task(batcher.score([task(recommender, [3], wait_s=0.02)]))
        await asyncio.sleep(0.05)
        scorer.gate.set()
        assert (await patient)[0].found.item_ids == [3, 0]
        with pytest.raises(TooLateError):
            await hasty
        assert scorer.steps == [1]  # the second one was not scored

    run(talk)


def test_batcher_has_no_room_while_the_estimated_wait_is_long() -> None:
    scorer = Counting()
    recommender = recommender_of(scorer)

    async def talk(batcher: Batcher, turns: list[Turn]) -> None:
        for _ in range(40):  # it learns that a session takes 10 ms or more
            scorer.gate.clear()
            asked = asyncio.create_task(batcher.score([task(recommender, [1])]))
            await asyncio.sleep(0.01)
            batcher.check_room()
            scorer.gate.set()
            await asked
        scorer.gate.clear()
        waiting = [asyncio.create_task(batcher.score([task(recommender, [1])])) for _ in range(20)]
        await until(lambda: batcher.n_waiting == 20)
        with pytest.raises(BusyError) as refused:
            batcher.check_room()
        assert 0.1 < refused.value.wait_s < 2
        scorer.gate.set()
        await asyncio.gather(*waiting)
        batcher.check_room()

    run(talk, longest_wait_s=0.1)


def test_batcher_estimates_the_turns_of_sessions_that_wait_for_places() -> None:
    """10 ms a session, two in a turn. One of 160 clicks needs 10 turns, three need one: 3.25 on average. The two beyond
    the first turn of 20 ms wait 3.25 turns more.
    """
    scorer = Counting()
    recommender = recommender_of(scorer)
    scorer.gate.clear()

    async def talk(batcher: Batcher, turns: list[Turn]) -> None:
        batcher.expect(0.01)
        sessions = [[1] * 160, [1], [], [2] * 16]
        waiting = asyncio.create_task(batcher.score([task(recommender, clicks) for clicks in sessions]))
        await until(lambda: batcher.n_waiting == 4)
        assert batcher.wait_s == pytest.approx(0.02 * 4.25)
        scorer.gate.set()
        await waiting
        assert batcher.wait_s == 0

    run(talk, batch_sessions=2)


def test_batcher_estimates_the_wait_for_a_busy_event_loop() -> None:
    """An answer that the loop takes 0.4 s late counts a twentieth, and the next request waits for that twice: 40 ms."""
    scorer = Counting()
    recommender = recommender_of(scorer)
    scorer.gate.clear()

    async def talk(batcher: Batcher, turns: list[Turn]) -> None:
        first = asyncio.create_task(batcher.score([task(recommender, [1])]))
        await until(lambda: batcher.n_waiting == 1)
        scorer.gate.set()
        time.sleep(0.41)  # the thread is done meanwhile, and its answer lies about
        await first
        batcher.expect(0.0)
        assert batcher.wait_s == 0, "nobody waits"
        scorer.gate.clear()
        second = asyncio.create_task(batcher.score([task(recommender, [1])]))
        await until(lambda: batcher.n_waiting == 1)
        assert 0.02 < batcher.wait_s < 0.08
        scorer.gate.set()
        await second

    run(talk)


def test_batcher_waits_for_others_no_longer_than_told() -> None:
    recommender = recommender_of(Counting())

    async def talk(batcher: Batcher, turns: list[Turn]) -> None:
        async def later() -> None:
            await asyncio.sleep(0.05)
            await batcher.score([task(recommender, [2])])

        started = time.monotonic()
        await asyncio.gather(batcher.score([task(recommender, [1])]), later())
        assert [turn.n_sessions for turn in turns] == [2]
        assert 0.2 <= time.monotonic() - started < 2
        await batcher.score([task(recommender, [n]) for n in (0, 1, 2)])  # full: it waits no longer
        assert [turn.n_sessions for turn in turns] == [2, 3]

    run(talk, batch_wait_s=0.2, batch_sessions=3)
