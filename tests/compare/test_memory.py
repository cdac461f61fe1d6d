"""Memory that a piece of work adds: what it needs, whatever was there before."""

from __future__ import annotations

import pytest

from gru4rec.compare.memory import AddedMemory


def added_by(n_bytes: int, size: int, kept: list[bytearray]) -> int:
    """Return what is measured of pieces of a size; the last of them is kept, and the others leave a hole below it."""
    memory = AddedMemory()
    pieces = [bytearray(size) for _ in range(n_bytes // size)]
    found = memory.n_bytes()
    kept.append(pieces[-1])
    if found is None:
        pytest.skip("this system does not tell")
    return found


@pytest.mark.parametrize("size", [4_000, 20_000_000])
def test_work_adds_the_same_after_work_that_needed_more(size: int) -> None:
    kept: list[bytearray] = []
    before = added_by(60_000_000, size, kept)
    added_by(200_000_000, size, kept)
    after = added_by(60_000_000, size, kept)
    for found in (before, after):
        assert 50_000_000 < found < 80_000_000
