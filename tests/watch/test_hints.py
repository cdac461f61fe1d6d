"""Each hint has samples that call for it and samples just short of that."""

from __future__ import annotations

from typing import Any

import pytest
from watch.made_up_run import sample

from gru4rec.watch.hints import hints


def hints_of(n_threads: int = 1, **figures: Any) -> list[str]:
    return hints([sample(**figures)] * 3, n_threads=n_threads)


def test_machine_on_which_all_is_well_has_no_hint() -> None:
    assert hints_of() == []


def test_no_samples_or_empty_ones_have_no_hint() -> None:
    nothing: list[dict[str, Any]] = [{}, {"core_shares": None, "process_share": "x"}, dict.fromkeys(sample())]
    assert hints([]) == hints(nothing) == []


def test_swapping_machine_is_told() -> None:
    (hint,) = hints_of(swap_pages_per_s=5_200.0)
    assert hint.startswith("The machine swaps 5,200 pages a second")
    assert hint.endswith("lower batch_size, n_sample or --sample_store_size.")
    assert hints_of(swap_pages_per_s=50.0) == []


def test_swapping_is_a_mean_over_the_samples() -> None:
    assert hints([sample(), sample(), sample(swap_pages_per_s=600.0)])[0].startswith("The machine swaps 200 pages")


def test_swapping_explains_a_process_that_waits() -> None:
    assert len(hints_of(swap_pages_per_s=5_200.0, process_share=0.1, io_wait_share=0.9)) == 1


def test_nearly_full_memory_is_told_by_the_newest_sample() -> None:
    (hint,) = hints_of(memory_available_bytes=1_250_000_000)  # of 25 GB: 95% full
    assert hint.startswith("The machine's memory is 95% full, 1.2 GB are left: end other programs")
    assert hints_of(memory_available_bytes=2_500_000_000) == []  # 90%
    assert hints([sample(memory_available_bytes=0), sample()]) == []
    assert "99% full, 0.2 GB are left" in hints([sample(), sample(memory_available_bytes=250_000_000)])[0]


def test_cores_kept_busy_by_others_are_told() -> None:
    (hint,) = hints_of(process_share=0.5, core_shares=[1.0, 1.0])
    assert hint == "Other processes keep 1.5 of 2 cores busy and the run gets 0.5: end them, or run them later."
    (hint,) = hints_of(2, process_share=0.9, core_shares=[1.0, 1.0])
    assert hint.endswith("or give the run fewer --threads (it has 2).")


@pytest.mark.parametrize(
    "figures",
    [
        {"process_share": 1.0, "core_shares": [1.0, 0.6]},  # there is room left
        {"process_share": 1.9, "core_shares": [1.0, 1.0]},  # the run itself is what keeps them busy
    ],
)
def test_cores_with_room_or_kept_busy_by_the_run_are_not_told(figures: dict[str, Any]) -> None:
    assert hints_of(**figures) == []


def test_process_that_waits_for_a_disk_is_told() -> None:
    (hint,) = hints_of(process_share=0.3, core_shares=[0.3, 0.05], io_wait_share=0.6)
    assert hint.startswith("The process computes on 0.3 of the 1 core it could use, and 0.6 cores wait for a disk")
    assert "the log is read too slowly" in hint
    assert hints_of(process_share=0.95, io_wait_share=0.6) == []  # somebody else's disk


def test_process_well_below_its_threads_is_told() -> None:
    (hint,) = hints_of(2, process_share=1.0)
    assert hint.startswith("The process computes on 1.0 of the 2 cores it could use: it waits, likely for the log.")
    (hint,) = hints_of(1, process_share=0.4, core_shares=[0.4, 0.0])
    assert "threads" not in hint
    assert hints_of(2, process_share=1.5) == []


def test_process_that_waits_for_a_busy_gpu_is_as_it_should_be() -> None:
    assert hints_of(process_share=0.2, core_shares=[0.2, 0.0], gpu_use_shares=[0.9]) == []


def test_idle_gpu_beside_one_core_at_its_limit_is_told() -> None:
    (hint,) = hints_of(gpu_use_shares=[0.12, 0.0])
    assert hint.startswith("The GPU is used 12% while the process keeps one core at 100%")
    assert "raise batch_size or n_sample" in hint


@pytest.mark.parametrize(
    "figures",
    [
        {"gpu_use_shares": [0.0, 0.8]},  # the second one is what the run computes on, perhaps
        {"gpu_use_shares": [0.1], "process_share": 1.6, "core_shares": [0.8, 0.8]},  # trains on the CPU, in parallel
        {"gpu_use_shares": []},
        {"gpu_use_shares": None},
    ],
)
def test_busy_gpu_or_process_that_is_not_held_up_by_one_core_is_not_told(figures: dict[str, Any]) -> None:
    assert hints_of(**figures) == []


@pytest.mark.parametrize(
    "figures",
    [{"swap_pages_per_s": 1e4}, {"memory_available_bytes": 0}, {"process_share": 0.1, "core_shares": [1, 1]},
     {"process_share": 0.1}, {"gpu_use_shares": [0.0]}],
)  # fmt: skip
def test_hint_is_a_sentence_that_says_what_how_much_and_what_to_do(figures: dict[str, Any]) -> None:
    (hint,) = hints_of(**figures)
    assert hint[0].isupper()
    assert hint.endswith(".")
    assert any(character.isdigit() for character in hint)
