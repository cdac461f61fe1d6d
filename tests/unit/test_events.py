"""Reading event logs: every file type and table gives the same three columns."""

from __future__ import annotations

import datetime
import decimal
import gzip
import pickle
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from gru4rec.data import files
from gru4rec.data.events import Columns, EventLog, load_events
from gru4rec.errors import DataError

SESSION_IDS = [10, 2, 10, -5, 2, 10]
ITEM_IDS = [300, 7, 300, 12, 300, 7]
TIMES = [50, 10, 40, 30, 20, 60]
# By hand: sessions in integer order are -5, 2, 10, so their codes are 0, 1, 2. Items as they appear: 300, 7, 12.
SESSION_CODES = [2, 1, 2, 0, 1, 2]
ITEM_CODES = [0, 1, 0, 2, 0, 1]


def table(**columns: Any) -> dict[str, Any]:
    return {"SessionId": SESSION_IDS, "ItemId": ITEM_IDS, "Time": TIMES} | columns


def text(columns: dict[str, Any], separator: str = "\t", line_end: str = "\n") -> str:
    rows = zip(*columns.values(), strict=True)
    return line_end.join(separator.join(map(str, row)) for row in [tuple(columns), *rows]) + line_end


def parquet_bytes(columns: dict[str, Any]) -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table(columns), sink)
    return bytes(sink.getvalue())


def check_usual(log: EventLog) -> None:
    assert log.session_code.tolist() == SESSION_CODES
    assert log.item_code.tolist() == ITEM_CODES
    assert log.time.tolist() == TIMES
    assert log.items.item_ids.to_pylist() == [300, 7, 12]
    assert (log.n_events, log.n_sessions) == (6, 3)
    assert (log.session_code.dtype, log.item_code.dtype, log.time.dtype) == (np.int32, np.int32, np.int64)


def item_ids(log: EventLog) -> list[Any]:
    """Return each row's item id."""
    return log.items.ids_of(log.item_code)


# --- files ---


@pytest.mark.parametrize("pack", [bytes, gzip.compress], ids=["plain", "gzip"])
@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("log.tsv", text(table()).encode()),
        ("log.txt", text(table()).encode()),
        ("log.dat", text(table()).encode()),
        ("log", text(table()).encode()),
        ("log.csv", text(table(), ",").encode()),
        ("log.CSV", text(table(), ",").encode()),
        ("log.parquet", parquet_bytes(table())),
        ("parquet-under-another-name.tsv", parquet_bytes(table())),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_load_events_every_file_type_gives_the_same_log(
    name: str, content: bytes, pack: Callable[[bytes], bytes], tmp_path: Path
) -> None:
    for path in (tmp_path / name, tmp_path / f"{name}.gz"):
        path.write_bytes(pack(content))
        check_usual(load_events(path))
        check_usual(load_events(str(path)))


def test_load_events_trusted_pickle_gives_the_same_log(tmp_path: Path) -> None:
    frame = pd.DataFrame(table(), index=pd.Index(range(6), name="Time"))  # an index that is named like a column
    for name, content in (("a.pickle", pickle.dumps(frame)), ("b.pkl.gz", gzip.compress(pickle.dumps(frame)))):
        path = tmp_path / name
        path.write_bytes(content)
        check_usual(load_events(path, trust_pickle=True))
        with pytest.raises(DataError, match=r"is a pickle.*--trust-pickle"):
            load_events(path)


def test_load_events_pickle_that_is_not_trusted_is_not_executed(tmp_path: Path) -> None:
    witness = tmp_path / "executed"

    class Bomb:
        def __reduce__(self) -> Any:
            return (Path.touch, (witness,))

    path = tmp_path / "log.pickle"
    path.write_bytes(pickle.dumps(Bomb()))
    with pytest.raises(DataError, match="pickle"):
        load_events(path)
    assert not witness.exists()


def test_load_events_crlf_and_bom_are_no_part_of_names_or_values(tmp_path: Path) -> None:
    path = tmp_path / "windows.tsv"
    path.write_bytes(b"\xef\xbb\xbf" + text(table(), line_end="\r\n").encode())
    check_usual(load_events(path))


def test_load_events_missing_last_line_end_keeps_the_last_row(tmp_path: Path) -> None:
    path = tmp_path / "log.tsv"
    path.write_text(text(table()).rstrip("\n"))
    check_usual(load_events(path))


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_load_events_extra_columns_and_other_order_change_nothing(suffix: str, tmp_path: Path) -> None:
    columns = {"Price": ["x"] * 6, **dict(reversed(table().items())), "Note": ['say "hi", and\ngo'] * 6}
    path = tmp_path / f"log{suffix}"
    if suffix == ".csv":
        pd.DataFrame(columns).to_csv(path, index=False)
    else:
        pq.write_table(pa.table(columns), path)
    check_usual(load_events(path))


def test_load_events_renamed_columns_are_found(tmp_path: Path) -> None:
    names = Columns(session_key="visit", item_key="sku", time_key="at")
    renamed = dict(zip(names.names, table().values(), strict=True))
    path = tmp_path / "log.tsv"
    path.write_text(text(renamed))
    check_usual(load_events(path, columns=names))
    check_usual(load_events(pd.DataFrame(renamed), columns=names))
    check_usual(load_events(pa.table(renamed), columns=names))


def test_load_events_source_names_where_the_log_is_from(tmp_path: Path) -> None:
    path = tmp_path / "log.tsv"
    path.write_text(text(table()))
    assert load_events(path).source == str(path)
    assert load_events(pd.DataFrame(table())).source == "the pandas table"
    assert load_events(pl.DataFrame(table())).source == "the polars table"
    assert load_events(pa.table(table())).source == "the pyarrow table"


def test_load_events_log_is_returned_as_it_is() -> None:
    log = load_events(pa.table(table()))
    assert load_events(log) is log


# --- ids ---


@pytest.mark.parametrize("suffix", [".tsv", ".csv", ".parquet"])
def test_load_events_integers_beyond_53_bit_stay_apart(suffix: str, tmp_path: Path) -> None:
    big = [2**53, 2**53 + 1, 2**63 - 1, -(2**63), -(2**63) + 1, 2**53]  # as floats some of these are the same
    path = tmp_path / f"log{suffix}"
    columns = table(ItemId=big, SessionId=big)
    if suffix == ".parquet":
        path.write_bytes(parquet_bytes(columns))
    else:
        path.write_text(text(columns, "," if suffix == ".csv" else "\t"))
    log = load_events(path)
    assert log.items.is_integer
    assert item_ids(log) == big
    assert log.session_code.tolist() == [2, 3, 4, 0, 1, 2]
    assert log.n_sessions == 5


def test_load_events_text_ids_keep_every_character(tmp_path: Path) -> None:
    ids = ["naïve", "日本", "a b", "O'Neil", 'say "hi"', "a,b"]
    path = tmp_path / "log.csv"
    pd.DataFrame(table(ItemId=ids, SessionId=ids)).to_csv(path, index=False)
    for log in (load_events(path), load_events(pd.DataFrame(table(ItemId=ids)))):
        assert not log.items.is_integer
        assert item_ids(log) == ids


def test_load_events_quoted_values_are_the_same_as_plain_ones(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    path.write_text('"SessionId","ItemId","Time"\n"1","a","5"\n1,a,6\n"1","b",7\n')
    log = load_events(path)
    assert item_ids(log) == ["a", "a", "b"]
    assert log.time.tolist() == [5, 6, 7]


def test_load_events_words_for_nothing_are_ids(tmp_path: Path) -> None:
    ids = ["NA", "null", "None", "nan", "NULL", "true"]
    path = tmp_path / "log.tsv"
    path.write_text(text(table(ItemId=ids)))
    assert item_ids(load_events(path)) == ids


@pytest.mark.parametrize(
    ("ids", "kept"),
    [
        (["7", "12", "-3"], [7, 12, -3]),
        (["007", "7", "12"], ["007", "7", "12"]),  # two products, so none of the ids is a number
        (["+7", "7", "8"], ["+7", "7", "8"]),
        (["-0", "0", "1"], ["-0", "0", "1"]),
        (["1.0", "1", "2"], ["1.0", "1", "2"]),
        (["1e3", "1000", "2"], ["1e3", "1000", "2"]),
        ([" 7", "7", "8"], [" 7", "7", "8"]),
        (["9223372036854775807", "1", "2"], [9223372036854775807, 1, 2]),
        (["9223372036854775808", "1", "2"], ["9223372036854775808", "1", "2"]),  # beyond 64 bit
        (["١٢", "12", "13"], ["١٢", "12", "13"]),  # other digits
    ],
)
def test_load_events_text_that_spells_integers_becomes_integers(
    ids: list[str], kept: list[Any], tmp_path: Path
) -> None:
    path = tmp_path / "log.tsv"
    columns = {"SessionId": [1, 1, 1], "ItemId": ids, "Time": [1, 2, 3]}
    path.write_text(text(columns), encoding="utf-8")
    assert item_ids(load_events(path)) == kept
    assert item_ids(load_events(pa.table(columns))) == kept


def test_load_events_ids_that_become_text_late_are_text_throughout(tmp_path: Path) -> None:
    n_rows = 300_000  # about 4 MB: several blocks of the reader
    ids = [*range(n_rows - 1), "x1"]
    path = tmp_path / "log.tsv"
    path.write_text(text({"SessionId": ids, "ItemId": ids, "Time": [1] * n_rows}))
    log = load_events(path)
    assert item_ids(log)[:2] == ["0", "1"]
    assert item_ids(log)[-1] == "x1"
    assert (log.items.n_items, log.n_sessions) == (n_rows, n_rows)
    # text order: "0", "1", "10", "100", ..., and "x1" is last
    assert log.session_code[0] == 0
    assert log.session_code[10] == 2
    assert log.session_code[-1] == n_rows - 1


def test_load_events_repeated_ids_far_apart_get_one_code(tmp_path: Path) -> None:
    n_rows = 200_000
    path = tmp_path / "log.csv"
    path.write_text(
        text({"SessionId": ["s"] * n_rows, "ItemId": [f"i{n % 7}" for n in range(n_rows)], "Time": range(n_rows)}, ",")
    )
    log = load_events(path)
    assert (log.n_sessions, log.items.n_items) == (1, 7)
    assert log.item_code.tolist() == [n % 7 for n in range(n_rows)]


def test_load_events_session_order_is_numeric_for_integers_and_textual_for_text() -> None:
    numbers = load_events(pa.table(table(SessionId=["10", "9", "100", "9", "-1", "10"])))
    assert numbers.session_code.tolist() == [2, 1, 3, 1, 0, 2]  # -1 < 9 < 10 < 100
    words = load_events(pa.table(table(SessionId=["10", "9", "100", "9", "b", "é"])))
    assert words.session_code.tolist() == [0, 2, 1, 2, 3, 4]  # "10" < "100" < "9" < "b" < "é"


# --- times ---


def test_load_events_times_are_integers_or_floats_as_a_whole(tmp_path: Path) -> None:
    path = tmp_path / "log.tsv"
    path.write_text(text(table(Time=[1, 2, 3, 4, 5, 6.5])))
    log = load_events(path)
    assert log.time.dtype == np.float64
    assert log.time.tolist() == [1, 2, 3, 4, 5, 6.5]
    path.write_text(text(table(Time=["1e3", "-2.5", "3.", "+4", " 5", "6"])))
    assert load_events(path).time.tolist() == [1000, -2.5, 3, 4, 5, 6]


def test_load_events_integer_times_beyond_53_bit_stay_apart(tmp_path: Path) -> None:
    nanoseconds = [1_577_836_800_000_000_000 + n for n in range(6)]
    path = tmp_path / "log.tsv"
    path.write_text(text(table(Time=nanoseconds)))
    assert load_events(path).time.tolist() == nanoseconds


@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
def test_load_events_timestamps_become_numbers_in_their_own_unit(unit: str) -> None:
    times = pa.array(TIMES, pa.int64()).cast(pa.timestamp(unit))
    assert load_events(pa.table(table(Time=times))).time.tolist() == TIMES
    zoned = pa.array(TIMES, pa.int64()).cast(pa.timestamp(unit, "Europe/Budapest"))
    assert load_events(pa.table(table(Time=zoned))).time.tolist() == TIMES
    assert load_events(pd.DataFrame(table(Time=np.array(TIMES, f"datetime64[{unit}]")))).time.tolist() == TIMES


def test_load_events_dates_keep_their_order() -> None:
    days = [datetime.date(9999, 12, 31), datetime.date(1, 1, 1), datetime.date(1970, 1, 2)] * 2
    times = load_events(pa.table(table(Time=days))).time
    assert np.argsort(times[:3]).tolist() == [1, 2, 0]
    assert times[2] == 24 * 60 * 60 * 1000  # milliseconds since 1970


@pytest.mark.parametrize(
    "kind", [pa.int8(), pa.uint8(), pa.int32(), pa.uint64(), pa.float16(), pa.float32(), pa.float64()]
)
def test_load_events_every_number_type_is_a_time(kind: pa.DataType) -> None:
    times = pa.array(np.array(TIMES).astype(kind.to_pandas_dtype()))
    assert load_events(pa.table(table(Time=times))).time.tolist() == TIMES


# --- tables ---


@pytest.mark.parametrize(
    "change",
    [
        lambda frame: frame,
        lambda frame: frame[["Time", "ItemId", "SessionId"]],
        lambda frame: frame.set_index(pd.Index([9, 9, 3, 1, 0, 2])),
        lambda frame: frame.set_index(pd.Index(range(6), name="ItemId")),
        lambda frame: frame.astype({"SessionId": "Int64", "ItemId": "Int32", "Time": "Int64"}),
        lambda frame: frame.astype({"SessionId": float, "ItemId": "float32"}),  # pandas' integers once one was missing
        lambda frame: frame.astype({"SessionId": "int16", "ItemId": "uint16", "Time": "int32"}),
        lambda frame: frame.astype({"SessionId": str, "ItemId": str}),
        lambda frame: frame.astype({"SessionId": object, "ItemId": object, "Time": object}),
        lambda frame: frame.astype({"SessionId": "category", "ItemId": "category"}),
        lambda frame: frame.astype({"ItemId": pd.CategoricalDtype([1, 7, 12, 300, 900])}),
        lambda frame: frame.astype({"SessionId": "int64[pyarrow]", "ItemId": "string[pyarrow]"}),
    ],
)
def test_load_events_pandas_frame_of_any_type_gives_the_same_log(
    change: Callable[[pd.DataFrame], pd.DataFrame],
) -> None:
    frame = change(pd.DataFrame(table()))
    before = frame.copy(deep=True)
    check_usual(load_events(frame))
    pd.testing.assert_frame_equal(frame, before)


@pytest.mark.parametrize(
    "change",
    [
        lambda frame: frame,
        lambda frame: frame.select("Time", "ItemId", "SessionId"),
        lambda frame: frame.with_columns(pl.col("SessionId").cast(pl.Int8), pl.col("ItemId").cast(pl.UInt16)),
        lambda frame: frame.with_columns(pl.col("ItemId").cast(pl.String)),
        lambda frame: frame.with_columns(pl.col("ItemId").cast(pl.String).cast(pl.Categorical)),
        lambda frame: frame.with_columns(pl.col("ItemId").cast(pl.String).cast(pl.Enum(["900", "12", "7", "300"]))),
        lambda frame: pl.concat([frame.head(2), frame.tail(4)], rechunk=False),
    ],
)
def test_load_events_polars_frame_of_any_type_gives_the_same_log(
    change: Callable[[pl.DataFrame], pl.DataFrame],
) -> None:
    frame = change(pl.DataFrame(table()))
    before = frame.clone()
    check_usual(load_events(frame))
    assert frame.equals(before)


ITEM_TEXTS = [str(item) for item in ITEM_IDS]


@pytest.mark.parametrize(
    "items",
    [
        pa.array(ITEM_IDS),
        pa.array(ITEM_IDS, pa.uint32()),
        pa.array([decimal.Decimal(item) for item in ITEM_IDS]),
        pa.array(ITEM_TEXTS),
        pa.array(ITEM_TEXTS, pa.large_string()),
        pa.array(ITEM_TEXTS, pa.string_view()),
        pa.array(ITEM_TEXTS, pa.binary()),
        pa.array(ITEM_IDS).dictionary_encode(),
        pa.array(ITEM_TEXTS).dictionary_encode(),
        pa.array(ITEM_TEXTS, pa.large_string()).dictionary_encode(),
        pa.DictionaryArray.from_arrays(pa.array([3, 2, 3, 1, 3, 2], pa.int8()), ["unused", "12", "7", "300"]),
        pa.DictionaryArray.from_arrays([0, 1, 3, 2, 0, 1], ["300", "7", "12", "300"]),  # one id under two codes
        pa.chunked_array([ITEM_IDS[:1], ITEM_IDS[1:4], [], ITEM_IDS[4:]]),
        pa.chunked_array([pa.array(part).dictionary_encode() for part in (ITEM_TEXTS[:3], ITEM_TEXTS[3:])]),
        pa.chunked_array([pa.array(ITEM_IDS[:2]).dictionary_encode(), pa.array(ITEM_IDS[2:]).dictionary_encode()]),
    ],
    ids=lambda items: str(items.type),
)
def test_load_events_arrow_table_of_any_type_gives_the_same_log(items: Any) -> None:
    check_usual(load_events(pa.table(table(ItemId=items))))


def test_load_events_arrow_slice_gives_its_rows() -> None:
    log = load_events(pa.table(table()).slice(2, 3))
    assert item_ids(log) == [300, 12, 300]
    assert log.time.tolist() == [40, 30, 20]


@pytest.mark.parametrize("make", [pd.DataFrame, pl.DataFrame, pa.table])
def test_load_events_missing_id_in_a_table_raises_with_its_row(make: Callable[[Any], Any]) -> None:
    with pytest.raises(DataError, match=r"1 of 6 rows of the \w+ table have no ItemId \(first: row 3\)"):
        load_events(make(table(ItemId=["a", "b", None, "c", "d", "e"])))
    with pytest.raises(DataError, match=r"2 of 6 rows of the \w+ table have no SessionId \(first: row 1\)"):
        load_events(make(table(SessionId=["", "b", "a", "", "d", "e"])))


@pytest.mark.parametrize("values", [["a", None], [7, None]])
def test_load_events_missing_id_in_a_dictionary_raises_with_its_row(values: list[Any]) -> None:
    items = pa.DictionaryArray.from_arrays(pa.array([0, 1, 0, 1, 0, 0]), pa.array(values))
    with pytest.raises(DataError, match=r"2 of 6 rows .* have no ItemId \(first: row 2\)"):
        load_events(pa.table(table(ItemId=items)))


@pytest.mark.parametrize(
    ("ids", "kind"),
    [
        (pa.array([True, False] * 3), "bool"),
        (pa.array([True, False] * 3).dictionary_encode(), "bool"),
        (pa.array(TIMES, pa.timestamp("s")), "timestamp"),
        (pa.array(TIMES, pa.int32()).cast(pa.date32()), "date32"),
        (pa.array(TIMES, pa.duration("s")), "duration"),
        (pa.array([1.5] * 6), "1.5"),
        (pa.array([float("nan")] * 6), "nan"),
        (pa.array([2.0**53] * 6), "lost digits"),
        (pa.array([2.0**24] * 6, pa.float32()), "lost digits"),
        (pa.array([2**63] * 6, pa.uint64()), "not in range"),
    ],
    ids=str,
)
def test_load_events_values_that_are_no_ids_raise(ids: pa.Array, kind: str) -> None:
    for name in ("SessionId", "ItemId"):
        with pytest.raises(
            DataError, match=rf"column '{name}' of the pyarrow table holds .*{kind}.*Use .*integers or text"
        ):
            load_events(pa.table(table(**{name: ids})))


def test_load_events_float_ids_below_the_limit_are_integers() -> None:
    ids = [2.0**53 - 1, -(2.0**53) + 1, 0.0, 1.0, 2.0, 3.0]
    assert item_ids(load_events(pa.table(table(ItemId=ids)))) == [2**53 - 1, -(2**53) + 1, 0, 1, 2, 3]


@pytest.mark.parametrize(
    "kind", [pa.time32("s"), pa.time64("us"), pa.duration("s"), pa.month_day_nano_interval(), pa.bool_(), pa.string()]
)
def test_load_events_values_that_are_no_times_raise(kind: pa.DataType) -> None:
    with pytest.raises(DataError, match=r"column 'Time' of the pyarrow table holds .* values"):
        load_events(pa.table(table(Time=pa.nulls(6, kind))))


@pytest.mark.parametrize("data", [None, 5, [1, 2], {"SessionId": [1]}, np.zeros((2, 3)), pd.Series([1], name="ItemId")])
def test_load_events_something_else_raises_with_its_type(data: Any) -> None:
    with pytest.raises(DataError, match=rf"it is a {type(data).__name__}. Give a path, or a pandas, polars or Arrow"):
        load_events(data)


@pytest.mark.parametrize("frame", [pd.DataFrame(), pl.DataFrame(), pa.table({})])
def test_load_events_table_without_columns_raises(frame: Any) -> None:
    with pytest.raises(DataError, match=r"no column 'SessionId' .*no columns"):
        load_events(frame)


def test_arrow_has_let_go_of_a_file_that_was_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else its threads would do so while Python exits, which ends the process with SIGABRT."""
    path, opened = tmp_path / "log.csv", []
    path.write_text("SessionId,ItemId,Time\n")
    open_file = files._open

    def noting(path: Path) -> Any:
        opened.append(open_file(path))
        return opened[-1]

    monkeypatch.setattr(files, "_open", noting)
    n_references = []
    for _ in range(200):
        files.read_file(path, Columns(), trust_pickle=False)
        n_references.append(sys.getrefcount(opened[-1]))
    assert set(n_references) == {2}
