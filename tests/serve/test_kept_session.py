from __future__ import annotations

import msgpack
import numpy as np
import pytest

from gru4rec.serve.kept_session import KeptSession, rows_of, state_of

STATE = (np.array([0.1, -2.5], dtype=np.float32), np.array([3.0], dtype=np.float32))


def after(kept: KeptSession, *clicks: tuple[int | str, int | None], most_ids: int = 100) -> KeptSession:
    for item_id, item_idx in clicks:
        kept = kept.after(item_id, item_idx, STATE, most_ids=most_ids)
    return kept


def test_kept_session_comes_back_as_it_was() -> None:
    kept = after(KeptSession("v1"), (7, 2), ("unknown", None), (-(2**63), 0))
    back = KeptSession.unpack(kept.pack("float32"))
    assert (back.model_version, back.n_clicks, back.item_ids) == ("v1", 3, [7, "unknown", -(2**63)])
    assert back.item_idx.tolist() == [2, 0]
    assert back.tag == kept.tag != b""
    assert back.state is not None
    assert [row.tolist() for row in back.state] == [row.tolist() for row in STATE]


def test_kept_session_float16_takes_half_and_rounds() -> None:
    kept = KeptSession("v1").after(7, 2, (np.full(1000, 0.1, dtype=np.float32),), most_ids=9)
    exact, rounded = kept.pack("float32"), kept.pack("float16")
    assert len(exact) - len(rounded) == 2000
    back = KeptSession.unpack(rounded).state
    assert back is not None
    assert back[0].dtype == np.float32
    assert back[0][0] == np.float32(np.float16(0.1)) != np.float32(0.1)


def test_kept_session_forgets_the_oldest_ids_and_counts_on() -> None:
    kept = after(KeptSession("v1"), *((n, n) for n in range(7)), most_ids=5)
    assert (kept.n_clicks, kept.n_ids, kept.item_ids) == (7, 5, [2, 3, 4, 5, 6])
    assert kept.item_idx.tolist() == [2, 3, 4, 5, 6]


def test_kept_session_tag_changes_with_every_click() -> None:
    once = after(KeptSession("v1"), (7, 2))
    assert len({once.tag, after(once, (7, 2)).tag, after(once, (7, 2)).tag}) == 3


def test_kept_session_state_rows_and_tensors() -> None:
    state = state_of(STATE)
    assert [tuple(layer.shape) for layer in state] == [(1, 2), (1, 1)]
    assert [row.tolist() for row in rows_of(state)] == [row.tolist() for row in STATE]


@pytest.mark.parametrize(
    "packed",
    [
        b"",
        b"12345678",
        b"12345678garbage",
        b"12345678" + msgpack.packb([1, 2]),
        b"12345678" + msgpack.packb([2, "v1", 1, 1, b"\x07", b"", "float32", None]),
        b"12345678" + msgpack.packb([1, "v1", 1, 1, b"\x07", b"123", "float32", None]),
        b"12345678" + msgpack.packb([1, "v1", 1, 1, b"\x07", b"", "int64", None]),
        b"12345678" + msgpack.packb([1, "v1", 1, 1, b"\x07", b"", "float32", [b"123"]]),
        b"12345678" + msgpack.packb([1, "v1", 1, 1, b"\x07", b"", "float32", 7]),
        b"12345678" + msgpack.packb([1, "v1", 1, 1, 7, b"", "float32", None]),
        b"12345678" + msgpack.packb([1, "v1", "1", 1, b"\x07", b"", "float32", None]),
    ],
)
def test_kept_session_other_bytes_are_refused(packed: bytes) -> None:
    with pytest.raises(ValueError, match="not a kept session"):
        KeptSession.unpack(packed)
