"""Files of a model that several processes hold: written by the first of them, block by block, and read likewise.

They are the files of a single process (:mod:`gru4rec.bundle`, :mod:`gru4rec.train.checkpoint`), in the safetensors
format: eight bytes that say how long the header is, the header as JSON, the arrays. No process ever holds a whole item
matrix.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from gru4rec.bundle import ReadArray, checksum
from gru4rec.distributed.group import Group
from gru4rec.errors import GRU4RecError, ModelFileError
from gru4rec.model.shard import Shard

_BLOCK_BYTES = 2_000_000
"""Of a matrix that are sent and written at once."""
_TYPES = {
    "float64": "F64", "float32": "F32", "int64": "I64", "int32": "I32", "uint8": "U8", "bool": "BOOL",
}  # fmt: skip
_LARGEST_CHECKSUM = 2**32 - 1
ITEM_MATRICES = ("Wy.weight", "By.weight", "E.weight", "Wx0.weight")
"""What the names of arrays with a row for each item end in."""


@dataclass(frozen=True)
class Part:
    """What a process holds of an array.

    Attributes:
        values: On the CPU or a GPU.
        shard: Which rows of the whole array these are; None: they are the whole array, the same in all processes.
    """

    values: Tensor
    shard: Shard | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the whole array."""
        return self.values.shape if self.shard is None else (self.shard.n_items, *self.values.shape[1:])

    def blocks(self, group: Group) -> Iterator[np.ndarray | None]:
        """Yield the whole array, block by block, in the first process, None in the others, which must iterate too."""
        if self.shard is None:
            yield self.values.detach().cpu().numpy() if group.is_first else None
            return
        row_bytes = self.values.element_size() * max(1, self.values[:1].numel())
        at_once = max(1, _BLOCK_BYTES // (row_bytes * group.n_ranks))
        for first in range(0, -(-self.shard.n_items // group.n_ranks), at_once):
            mine = self.values[first : first + at_once].detach()
            padded = mine.new_zeros(at_once, *mine.shape[1:])
            padded[: len(mine)] = mine
            parts = group.gather_at_first(padded)
            if parts is None:
                yield None
                continue
            rows = torch.stack(parts, dim=1).flatten(0, 1)  # the first row of each, then the second of each, ...
            yield rows[: self.shard.n_items - first * group.n_ranks].cpu().numpy()


Metadata = Callable[[Mapping[str, int]], Mapping[str, str]]
"""Given the arrays' checksums by name, returns the texts of the header."""
Put = Callable[[Path, Callable[[Path], None]], None]
"""Calls its second argument with another name to write to, which then takes the place of the first."""


def write_parts(
    path: Path, parts: Mapping[str, Part], metadata: Metadata, group: Group, put: Put, error_type: type[GRU4RecError]
) -> None:
    """Write a safetensors file, whole or not at all.

    All processes call this, with parts of the same names in the same order.

    Args:
        path: The file.
        parts: What this process holds.
        metadata: What else is to stand in the file.
        group: The processes.
        put: How the first process replaces the file; it raises an ``error_type`` where that fails.
        error_type: Of errors.

    Raises:
        GRU4RecError: An ``error_type``, in all processes: the file cannot be written.
    """
    largest_first = sorted(parts, key=lambda name: -parts[name].values.element_size())
    parts = {name: parts[name] for name in largest_first}  # so that all numbers lie where readers may map them
    blocks = ((name, block) for name, part in parts.items() for block in part.blocks(group))
    failure = None
    if group.is_first:
        try:
            put(path, lambda temporary: _write(temporary, blocks, parts, metadata))
        except error_type as error:
            failure = error
    for _ in blocks:  # what is not written is sent all the same
        pass
    if group.any(failure is not None):
        raise failure or error_type(f"the first process cannot write {path}")


def _write(
    path: Path, blocks: Iterator[tuple[str, np.ndarray | None]], parts: Mapping[str, Part], metadata: Metadata
) -> None:
    with open(path, "wb") as file:
        # Checksums stand before what they are of, so room is left for the longest; that of the header may be longer.
        longest = metadata(dict.fromkeys(parts, _LARGEST_CHECKSUM))
        room = len(json.dumps(_header(parts, longest)).encode()) + 16
        room += -room % 8
        file.write(bytes(8 + room))
        checksums = dict.fromkeys(parts, 0)
        for name, block in blocks:
            assert block is not None, "the first process has them all"
            file.write(np.ascontiguousarray(block).data)
            checksums[name] = checksum(block, checksums[name])
        header = json.dumps(_header(parts, metadata(checksums))).encode()
        assert len(header) <= room
        file.seek(0)
        file.write(room.to_bytes(8, "little") + header.ljust(room))
        file.flush()
        os.fsync(file.fileno())


def _header(parts: Mapping[str, Part], texts: Mapping[str, str]) -> dict[str, Any]:
    header: dict[str, Any] = {"__metadata__": dict(texts)}
    end = 0
    for name, part in parts.items():
        start, end = end, end + part.values.element_size() * int(np.prod(part.shape))
        kind = _TYPES[str(part.values.dtype).removeprefix("torch.")]
        header[name] = {"dtype": kind, "shape": list(part.shape), "data_offsets": [start, end]}
    return header


def read_part(path: Path, name: str, out: Part) -> None:
    """Fill ``out.values`` with what belongs there of an array in a safetensors file.

    Raises:
        ModelFileError: The file cannot be read, or has no such array, or one of another shape or type.
    """
    try:
        opened = safe_open(path, framework="pt")
    except (OSError, SafetensorError) as error:
        raise ModelFileError(f"cannot read {path}: {error}. Put it where all processes see it") from None
    with opened as file:
        found = file.get_slice(name) if name in file.keys() else None  # noqa: SIM118
        shape = None if found is None else tuple(found.get_shape())
        kind = None if found is None else found.get_dtype()
        if found is None or shape != out.shape or kind != _TYPES[str(out.values.dtype).removeprefix("torch.")]:
            raise ModelFileError(
                f"{path} has no {name} of {out.values.dtype} {out.shape}: it is of another model. Give the run's own"
            )
        if out.shard is None:
            out.values.copy_(file.get_tensor(name))
            return
        at_once = max(1, _BLOCK_BYTES // (out.values.element_size() * max(1, out.values[:1].numel())))
        for start in range(0, out.shard.n_items, at_once):
            stop = min(start + at_once, out.shard.n_items)
            of_block, held = out.shard.of_block(start, stop)
            out.values[held] = found[start:stop][of_block].to(out.values.device)


def reader_of(rank: int, n_ranks: int) -> ReadArray:
    """Return what reads arrays for a process: every ``n_ranks``-th row of item matrices, all of the others."""

    def read(file: Any, name: str) -> tuple[np.ndarray, int]:
        if not name.endswith(ITEM_MATRICES):
            array: np.ndarray = file.get_tensor(name)
            return array, checksum(array)
        found, crc, held = file.get_slice(name), 0, []
        n_rows, *rest = found.get_shape()
        shard = Shard(rank, n_ranks, n_rows)
        at_once = max(1, _BLOCK_BYTES // (8 * max(1, int(np.prod(rest)))))
        for start in range(0, n_rows, at_once):
            stop = min(start + at_once, n_rows)
            block = found[start:stop]
            crc = checksum(block, crc)
            held.append(block[shard.of_block(start, stop)[0]].copy())
        return np.concatenate(held), crc

    return read
