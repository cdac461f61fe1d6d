"""A visitor's session between two clicks, as a few bytes: what was clicked, and the hidden state after it.

The state belongs to one model: after a reload it is made anew from the clicks. Knows no store and no service.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field, replace
from typing import Any

import msgpack
import numpy as np
import torch

from gru4rec.evaluate.evaluator import State
from gru4rec.serve.settings import STATE_TYPES

TAG_BYTES = 8
_FORMAT = 1


@dataclass(frozen=True)
class KeptSession:
    """What is kept of a session.

    Attributes:
        model_version: Of the model that the item indices and the state belong to.
        n_clicks: Clicks so far.
        packed_ids: The ids of the newest clicks, known to the model or not, each packed by itself.
        n_ids: How many.
        item_idx: Int32, the item indices of those that the model knows.
        state: Hidden state after them, a row (H,) a layer; None where it is made from the clicks each time.
        tag: Changes with every click, so that a store can tell whether someone else wrote meanwhile.
    """

    model_version: str
    n_clicks: int = 0
    packed_ids: bytes = b""
    n_ids: int = 0
    item_idx: np.ndarray = field(default_factory=lambda: np.empty(0, dtype=np.int32))
    state: tuple[np.ndarray, ...] | None = None
    tag: bytes = b""

    @property
    def item_ids(self) -> list[Any]:
        """Ids of the newest clicks, oldest first."""
        unpacker = msgpack.Unpacker()
        unpacker.feed(self.packed_ids)
        return list(unpacker)

    def after(
        self, item_id: Any, item_idx: int | None, state: tuple[np.ndarray, ...] | None, *, most_ids: int
    ) -> KeptSession:
        """Return the session after one more click.

        Args:
            item_id: What was clicked.
            item_idx: Its index; None where the model does not know it.
            state: After the click.
            most_ids: Ids that are remembered; older ones are forgotten, and stay in the state alone.
        """
        known = self.item_idx if item_idx is None else np.append(self.item_idx, np.int32(item_idx))
        packed, n_ids = self.packed_ids + msgpack.packb(item_id), self.n_ids + 1
        if n_ids > most_ids:
            packed, n_ids = b"".join(map(msgpack.packb, replace(self, packed_ids=packed).item_ids[1:])), n_ids - 1
            known = known[-most_ids:]
        return KeptSession(
            self.model_version, self.n_clicks + 1, packed, n_ids, known, state, secrets.token_bytes(TAG_BYTES)
        )

    def pack(self, state_type: str) -> bytes:
        """Return the session as bytes, its tag first."""
        state = None if self.state is None else [row.astype(state_type).tobytes() for row in self.state]
        fields = (
            _FORMAT,
            self.model_version,
            self.n_clicks,
            self.n_ids,
            self.packed_ids,
            self.item_idx.tobytes(),
            state_type,
            state,
        )
        return self.tag + bytes(msgpack.packb(fields))

    @classmethod
    def unpack(cls, packed: bytes) -> KeptSession:
        """Read what :meth:`pack` wrote.

        Raises:
            ValueError: Those are other bytes.
        """
        try:
            version, model_version, n_clicks, n_ids, ids, item_idx, state_type, state = msgpack.unpackb(
                packed[TAG_BYTES:]
            )
            if version != _FORMAT or state_type not in STATE_TYPES:
                raise ValueError(f"format {version}, {state_type}")
            if [type(each) for each in (model_version, n_clicks, n_ids, ids)] != [str, int, int, bytes]:
                raise ValueError("fields of other types")
            rows = None if state is None else tuple(np.frombuffer(row, state_type).astype(np.float32) for row in state)
            known = np.frombuffer(item_idx, np.int32)
        except (ValueError, TypeError, msgpack.UnpackException) as error:
            raise ValueError(f"not a kept session: {error}") from None
        return cls(model_version, n_clicks, ids, n_ids, known, rows, packed[:TAG_BYTES])


def rows_of(state: State) -> tuple[np.ndarray, ...]:
    """Return the state of one session as rows to keep."""
    return tuple(layer[0].numpy() for layer in state)


def state_of(rows: tuple[np.ndarray, ...]) -> State:
    """Return kept rows as the state of one session."""
    return tuple(torch.from_numpy(row)[None] for row in rows)
