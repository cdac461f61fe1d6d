"""A copy of the item matrix that is quick to scan for what may be among the best of a session, with a guarantee.

The copy may be rounded (int8, bf16), which makes it smaller and the scan faster. How far each item was moved is kept,
so that a scan knows between which bounds an item's score lies: what may be among the k best is a candidate, and whoever
scores the candidates as the model does has exactly the model's list. Knows weights, not models or ids.

Dimensions: N items, H hidden units, B sessions.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Literal

import numpy as np

from gru4rec.serve.scan_loops import LOWEST, scan
from gru4rec.serve.topk import Wanted
from gru4rec.serve.vector_code import LANES

ScanKind = Literal["int8", "bf16", "float32"]
SCAN_KINDS: tuple[ScanKind, ...] = ("int8", "bf16", "float32")

_ITEMS_AT_ONCE = 256 * LANES
_ROOM = 1024
"""Candidates of a session at least; more than half of that room filled with equals is more than a scan is for."""


class ScanTable:
    """Items' weights in blocks, a hidden unit after the other, stored as ``kind``.

    Args:
        weight_NH: Float32, finite.
        bias_N: Float32, finite.
        kind: ``int8``: a quarter of the memory, each item with a scale of its own; ``bf16``: half; ``float32``: all.
        pool: Runs parts of a scan side by side; None: the caller's thread does it all.
        n_parts: Parts.

    Attributes:
        kind: As given.
        n_bytes: Memory it takes.
    """

    def __init__(
        self,
        weight_NH: np.ndarray,
        bias_N: np.ndarray,
        kind: ScanKind,
        *,
        pool: ThreadPoolExecutor | None = None,
        n_parts: int = 1,
    ) -> None:
        self.kind: ScanKind = kind
        self._n_items, self._n_hidden = weight_NH.shape
        self._n_blocks = -(-self._n_items // LANES)
        n_padded = self._n_blocks * LANES
        self._weights = np.zeros(n_padded * self._n_hidden, dtype={"int8": "i1", "bf16": "u2", "float32": "f4"}[kind])
        self._scale = np.ones(n_padded, dtype=np.float32)
        self._bias = np.full(n_padded, -np.inf, dtype=np.float32)
        self._error = np.zeros(n_padded, dtype=np.float32)
        for start in range(0, self._n_items, _ITEMS_AT_ONCE):
            self._store(weight_NH[start : start + _ITEMS_AT_ONCE], start)
        self._bias[: self._n_items] = bias_N
        self._slack = np.float32(np.abs(bias_N).max() * 2.0**-20)
        self._pool, self._n_parts = pool, n_parts

    @property
    def n_bytes(self) -> int:
        """Memory in bytes."""
        return sum(array.nbytes for array in (self._weights, self._scale, self._bias, self._error))

    def candidates(self, hidden_BH: np.ndarray, wanted: Sequence[Wanted]) -> list[np.ndarray | None]:
        """Return, for each session, items among which its k best are for sure.

        Args:
            hidden_BH: Float32, the last layer's states.
            wanted: Of each session.

        Returns:
            Int32 item indices; None where too many are about as good as the best.
        """
        hidden_BH = np.ascontiguousarray(hidden_BH, dtype=np.float32)
        filters = _filters(wanted)
        norm_B = (np.linalg.norm(hidden_BH.astype(np.float64), axis=1) * (1 + 1e-6)).astype(np.float32)
        k_B = np.array([each.k for each in wanted], dtype=np.int64)
        bounds = np.linspace(0, self._n_blocks, self._n_parts + 1).astype(np.int64)
        parts = [(int(first), int(last)) for first, last in itertools.pairwise(bounds) if first < last]

        def look(part: tuple[int, int]) -> tuple[np.ndarray, ...]:
            return self._scanned(part, hidden_BH, norm_B, k_B, filters)

        if self._pool is None or len(parts) == 1:
            found = [look(part) for part in parts]
        else:
            found = list(self._pool.map(look, parts))
        return [
            _joined([(items[b], highs[b], n[b], bar[b]) for items, highs, n, bar in found]) for b in range(len(k_B))
        ]

    def _scanned(
        self, part: tuple[int, int], hidden_BH: np.ndarray, norm_B: np.ndarray, k_B: np.ndarray, filters: Any
    ) -> tuple[np.ndarray, ...]:
        n_sessions, k_most = len(k_B), int(k_B.max())
        room = max(_ROOM, 4 * k_most)
        item_BC = np.empty((n_sessions, room), dtype=np.int32)
        high_BC = np.empty((n_sessions, room), dtype=np.float32)
        n_B = np.zeros(n_sessions, dtype=np.int64)
        bound_BK = np.empty((n_sessions, k_most), dtype=np.float32)
        bar_B = np.full(n_sessions, LOWEST, dtype=np.float32)
        scan(
            self._weights, self._scale, self._bias, self._error, self._slack, *part, self._n_items,
            hidden_BH, norm_B, k_B, *filters, item_BC, high_BC, n_B, bound_BK, bar_B,
        )  # fmt: skip
        return item_BC, high_BC, n_B, bar_B

    def _store(self, weight_CH: np.ndarray, start: int) -> None:
        """Round some items' weights, lay them out, and note how far they were moved."""
        n_items, n_hidden = weight_CH.shape
        stored_CH, scale_C = _ROUND[self.kind](weight_CH)
        n_blocks = -(-n_items // LANES)
        padded = np.zeros((n_blocks * LANES, n_hidden), dtype=stored_CH.dtype)
        padded[:n_items] = stored_CH
        first = start * n_hidden
        blocks = padded.reshape(n_blocks, LANES, n_hidden).transpose(0, 2, 1)
        self._weights[first : first + padded.size] = blocks.reshape(-1)
        read_CH = _READ[self.kind](stored_CH).astype(np.float64) * scale_C[:, None]
        moved_C = np.linalg.norm(weight_CH - read_CH, axis=1)
        # What sums of float32 may be off by, here and where the model computes them, with some room.
        norm_C = np.maximum(np.linalg.norm(weight_CH.astype(np.float64), axis=1), np.linalg.norm(read_CH, axis=1))
        rounding_C = (2 * n_hidden + 16) * 2.0**-23 * norm_C
        self._scale[start : start + n_items] = scale_C
        self._error[start : start + n_items] = (moved_C + rounding_C) * (1 + 1e-6)


def _round_int8(weight_CH: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    scale_C = (np.abs(weight_CH).max(axis=1) / 127).astype(np.float32)
    scale_C[scale_C == 0] = 1
    return np.clip(np.rint(weight_CH / scale_C[:, None]), -127, 127).astype(np.int8), scale_C


def _round_bf16(weight_CH: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    bits = weight_CH.astype(np.float32).view(np.uint32)
    rounded = (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16  # to the nearest, of two equally near to the even one
    return rounded.astype(np.uint16), np.ones(len(weight_CH), dtype=np.float32)


def _round_float32(weight_CH: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return weight_CH.astype(np.float32), np.ones(len(weight_CH), dtype=np.float32)


_ROUND: dict[str, Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]] = {
    "int8": _round_int8,
    "bf16": _round_bf16,
    "float32": _round_float32,
}
_READ: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "int8": lambda stored: stored.astype(np.float32),
    "bf16": lambda stored: (stored.astype(np.uint32) << 16).view(np.float32),
    "float32": lambda stored: stored,
}


def _filters(wanted: Sequence[Wanted]) -> tuple[np.ndarray, ...]:
    """Put all sessions' items one after the other: excluded and where they start, allowed likewise, who is limited."""
    is_limited = np.array([each.allowed_idx is not None for each in wanted])
    excluded = _in_a_row([each.excluded_idx for each in wanted])
    allowed = _in_a_row([np.empty(0) if each.allowed_idx is None else each.allowed_idx for each in wanted])
    return (*excluded, *allowed, is_limited)


def _in_a_row(arrays: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    starts = np.zeros(len(arrays) + 1, dtype=np.int64)
    np.cumsum([len(array) for array in arrays], out=starts[1:])
    return np.concatenate(arrays).astype(np.int32), starts


def _joined(parts: Sequence[tuple[np.ndarray, np.ndarray, int, float]]) -> np.ndarray | None:
    """Join the candidates of a session from all parts of a scan."""
    if any(n < 0 for _, _, n, _ in parts):
        return None
    bar = max(bar for *_, bar in parts)
    return np.concatenate([items[:n][highs[:n] >= bar] for items, highs, n, _ in parts])
