"""Devices by name, and how many threads pay."""

from __future__ import annotations

import pytest
import torch

from gru4rec.config import hyper_parameters
from gru4rec.errors import DeviceError
from gru4rec.model.device import resolve_device, threads_that_help


def test_auto_is_cuda_where_there_is_one_else_cpu() -> None:
    assert resolve_device("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")


@pytest.mark.parametrize("name", ["tpu", "meta", "cuda:x", "", "gpu0"])
def test_unknown_device_is_refused(name: str) -> None:
    with pytest.raises(DeviceError, match=rf"unknown device '{name}'\. Choose auto, cpu or cuda:N"):
        resolve_device(name)


def test_absent_cuda_device_is_refused() -> None:
    with pytest.raises(DeviceError, match=r"device 'cuda:99' is not on this machine, which has \d+ CUDA devices"):
        resolve_device("cuda:99")


def test_small_steps_get_one_thread_and_large_ones_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gru4rec.model.device.ALL_THREADS", 6)
    # 0.054 and 3.6 GFLOP a step
    assert threads_that_help(hyper_parameters({"layers": 100, "batch_size": 32})) == 1
    assert threads_that_help(hyper_parameters({"layers": 512, "batch_size": 240})) == 6
