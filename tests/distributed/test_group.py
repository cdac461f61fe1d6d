"""How processes meet, also where processes of before left something in the store, and who reports an error."""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path

import pytest
import torch
from torch.distributed import HashStore
from torch.distributed.distributed_c10d import PrefixStore, Store

from gru4rec.distributed import group
from gru4rec.distributed.files import Part, read_part
from gru4rec.distributed.group import Peers, device_here
from gru4rec.errors import ModelFileError


@pytest.fixture
def store() -> HashStore:
    kept = HashStore()
    kept.set_timeout(timedelta(seconds=20))
    return kept


def met(store: Store, n_ranks: int) -> list[Store]:
    """Let so many threads meet; returns what each may write to."""
    with ThreadPoolExecutor(n_ranks) as threads:
        calls = [threads.submit(group._of_this_start, store, rank, n_ranks) for rank in range(n_ranks)]
        return [call.result() for call in calls]


def test_processes_that_start_again_see_nothing_of_before(store: HashStore) -> None:
    for start in range(3):
        parts = met(store, 3)
        assert not any(part.check(["address"]) for part in parts)
        parts[1].set("address", f"of start {start}")
        assert [part.get("address") for part in parts] == [f"of start {start}".encode()] * 3


def test_process_that_died_before_the_others_came_is_not_waited_for(store: HashStore) -> None:
    store.set("gru4rec/caller 1", "who is dead")
    first, second = met(store, 2)
    first.set("address", "here")
    assert second.get("address") == b"here"


def test_first_process_waits_for_all(store: HashStore) -> None:
    with ThreadPoolExecutor(2) as threads:
        first: Future[Store] = threads.submit(group._of_this_start, store, 0, 2)
        with pytest.raises(TimeoutError):
            first.result(timeout=0.3)
        threads.submit(group._of_this_start, store, 1, 2).result()
        first.result()


@pytest.mark.parametrize(("order", "speaker"), [([0, 1, 2], 0), ([1, 0, 2], 0), ([1, 2], 1)])
def test_error_is_reported_by_the_first_process_or_by_one_of_the_others(
    order: list[int], speaker: int, store: HashStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(group, "_PATIENCE_S", 1.0)
    with ThreadPoolExecutor(3) as threads:
        said = {rank: threads.submit(Peers(rank, 3, PrefixStore("x", store)).is_to_report) for rank in order}
        speakers = [rank for rank, call in said.items() if call.result()]
    assert len(speakers) == 1
    assert speakers == [0] if speaker == 0 else speakers[0] in order


def test_process_that_is_lost_is_not_reported_once_it_said_why(
    store: HashStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(group, "_PATIENCE_S", 0.1)
    assert Peers(1, 2, store).is_to_report()
    assert not Peers(0, 2, store).is_to_report()


def test_each_process_of_a_machine_takes_a_gpu_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOCAL_RANK", "3")
    assert device_here("cuda") == "cuda:3"
    assert device_here("cpu") == "cpu"
    monkeypatch.delenv("LOCAL_RANK")  # as where a scheduler starts one process a machine, without torchrun
    assert device_here("cuda") == "cuda:0"


def test_file_that_a_process_does_not_see_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match=r"cannot read .*best.gru4rec: .*Put it where all processes see it"):
        read_part(tmp_path / "best.gru4rec", "Wy.weight", Part(torch.zeros(2, 3)))
