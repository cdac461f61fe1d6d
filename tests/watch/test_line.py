"""The machine in a few words."""

from __future__ import annotations

from watch.made_up_run import sample

from gru4rec.watch.line import machine_line
from gru4rec.watch.machine import MachineWatch


def test_line_says_cores_memory_of_the_process_and_of_the_machine() -> None:
    assert machine_line(sample()) == "cpu 1.0 of 2, memory 0.6 GB (machine 40%)"  # 15 of 25 GB are available


def test_line_has_a_part_about_gpus_where_there_are_some() -> None:
    one = sample(gpu_use_shares=[0.95], gpu_memory_used_bytes=[12e9])
    two = sample(gpu_use_shares=[0.95, 0.0], gpu_memory_used_bytes=[12e9, 0])
    assert machine_line(one).endswith(", gpu 95% 12.0 GB")
    assert machine_line(two).endswith(", gpu 95%/0% 12.0/0.0 GB")


def test_line_leaves_out_what_is_not_known() -> None:
    assert machine_line({}) == ""
    assert machine_line(sample(process_share=None, process_resident_bytes=None)) == "memory of the machine 40%"
    assert machine_line(sample(memory_total_bytes=None)) == "cpu 1.0 of 2, memory 0.6 GB"


def test_line_about_this_machine_is_short() -> None:
    line = machine_line(MachineWatch().sample() | {"gpu_use_shares": []})
    assert line.startswith("cpu ")
    assert len(line) < 60
