"""Each way to compare scores with targets' scores agrees with a slow loop: ties, block ends, odd sizes and layouts."""

from __future__ import annotations

import importlib.util
import itertools
import math
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from gru4rec.evaluate.counting import BlockCounter, block_counter, count_with_torch

CPU, CUDA = torch.device("cpu"), torch.device("cuda")


def blocks() -> Iterator[tuple[Tensor, int]]:
    """Scores full of ties, and the index of their first item."""
    rng = np.random.default_rng(5)
    shapes = [(1, 1), (3, 5), (5, 64), (2, 1023), (3, 1025), (33, 130)]
    for (n_rows, n_columns), dtype in itertools.product(shapes, (torch.float32, torch.float64)):
        scores = torch.as_tensor(rng.integers(0, 3, (n_rows, n_columns + 3))).to(dtype)
        scores[rng.random(scores.shape) < 0.1] = math.nan
        scores[rng.random(scores.shape) < 0.1] = math.inf
        yield scores[:, :n_columns].contiguous(), 0
        yield scores[:, 3:], 7  # as the last block of a model, cut off in front
    yield torch.tensor([1.0, 2.0, 1.0]).expand(4, -1), 2  # as a baseline's, the same for all rows
    yield torch.rand(70, 33).T, 1
    yield torch.rand(2, 4) + torch.finfo(torch.float32).eps * torch.arange(4), 0


def check(count: BlockCounter) -> int:
    """Compare with a slow loop; return the number of rows compared."""
    rng = np.random.default_rng(6)
    n_checked = 0
    for scores, start in blocks():
        n_rows, n_columns = scores.shape
        target_idx = rng.integers(max(start - 2, 0), start + n_columns + 2, n_rows)
        target_score = scores[np.arange(n_rows), rng.integers(n_columns, size=n_rows)].nan_to_num(1.0, posinf=2.0)
        counts = rng.integers(9, size=(3, n_rows))
        own_score = torch.full((n_rows,), -5, dtype=scores.dtype)
        expected, expected_own = counts.copy(), own_score.tolist()
        for row, column in itertools.product(range(n_rows), range(n_columns)):
            score, item = scores[row, column].item(), start + column
            expected[0, row] += score > target_score[row].item()
            expected[1, row] += score == target_score[row].item()
            expected[2, row] += score == target_score[row].item() and item < target_idx[row]
            if item == target_idx[row]:
                expected_own[row] = score
        found = torch.as_tensor(counts)
        count(scores, start, torch.as_tensor(target_idx), target_score, found, own_score)
        np.testing.assert_array_equal(found.numpy(), expected)
        np.testing.assert_array_equal(own_score.numpy(), np.array(expected_own, dtype=own_score.numpy().dtype))
        n_checked += n_rows
    return n_checked


def test_torch_counts_equal_a_slow_loop() -> None:
    assert check(count_with_torch) > 100


def test_compiled_counts_equal_a_slow_loop() -> None:
    pytest.importorskip("numba", reason="the compiled loop needs Numba")
    from gru4rec.evaluate.counting_numba import count_with_numba

    assert check(count_with_numba) > 100


def run_with_triton(code: str, **env: str) -> str:
    """Run code in a process of its own, since Triton reads its environment once; return what it prints."""
    if importlib.util.find_spec("triton") is None:
        pytest.skip("Triton is not installed: pip install -c constraints.txt triton")
    path = os.pathsep.join([str(Path(__file__).parent), *sys.path])
    done = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": path, **env}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_cuda_kernel_counts_equal_a_slow_loop_in_the_interpreter() -> None:
    code = (
        "from test_counting import check; from gru4rec.evaluate.counting_triton import count_with_triton; "
        "print(check(count_with_triton))"
    )
    assert int(run_with_triton(code, TRITON_INTERPRET="1")) > 100


def test_cuda_kernel_compiles_without_a_gpu(tmp_path: Path) -> None:
    code = """
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from gru4rec.evaluate.counting_triton import _kernel

kinds = "*fp32 i32 constexpr i32 i32 *i64 *fp32 *i64 *i64 *i64 *fp32 constexpr".split()
constants = {"column_stride": 1, "WIDTH": 1024}
source = ASTSource(_kernel, dict(zip(_kernel.arg_names, kinds, strict=True)), constants)
print(len(triton.compile(source, target=GPUTarget("cuda", 80, 32)).asm["ptx"]))
"""
    assert int(run_with_triton(code, TRITON_CACHE_DIR=str(tmp_path))) > 1000


def test_fastest_counter_that_can_run_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    assert block_counter(CPU, torch.float16) is count_with_torch
    if importlib.util.find_spec("numba"):
        assert block_counter(CPU, torch.float32).__name__ == "count_with_numba"
    monkeypatch.setattr("gru4rec.jit.HAVE_NUMBA", False)
    assert block_counter(CPU, torch.float32) is count_with_torch
    monkeypatch.setattr("gru4rec.evaluate.counting_triton.HAVE_TRITON", False)
    assert block_counter(CUDA, torch.float32) is count_with_torch


def test_compiled_counts_are_loaded_only_when_used() -> None:
    code = "import sys, gru4rec.evaluate.evaluator; print(sorted({'numba', 'triton'} & sys.modules.keys()))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
