"""A catalogue says what a model's items are called, which of them have a value, and no more than it may."""

from __future__ import annotations

import gzip
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pacsv
import pyarrow.parquet as papq
import pytest

from gru4rec.data.vocabulary import Vocabulary
from gru4rec.errors import ConfigError, DataError
from gru4rec.serve.items.catalogue import Catalogue, ItemDetails

SHOP = pa.table(
    {
        "ItemId": [10, 20, 30, 40],
        "Title": ["Red lamp", "Blue LAMP", None, "Ä chair"],
        "picture": ["https://cdn.example/a.png", "img/b.png", "", "javascript:alert(1)"],
        "brand": ["007", "acme", "acme", None],
        "price": [5.0, 19.99, 5.0, 1e300],
        "stock": [5, -1, 2**60 + 1, 0],
        "isNew": [True, False, True, None],
    }
)
ITEMS = Vocabulary([40, 30, 99, 10, 20])  # item indices 0..4; the catalogue does not know 99
SUPPORT = np.array([1, 7, 9, 7, 3])


def details(table: pa.Table, folder: Path, items: Vocabulary = ITEMS, support: np.ndarray = SUPPORT) -> ItemDetails:
    papq.write_table(table, folder / "items.parquet")
    return Catalogue.read(folder / "items.parquet").of(items, support)


@pytest.fixture
def shop(tmp_path: Path) -> ItemDetails:
    return details(SHOP, tmp_path)


def as_parquet(path: Path) -> None:
    papq.write_table(SHOP, path)


def as_text(separator: str) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        pacsv.write_csv(SHOP, path, pacsv.WriteOptions(delimiter=separator))

    return write


def packed(write: Callable[[Path], None]) -> Callable[[Path], None]:
    def write_packed(path: Path) -> None:
        write(path)
        path.write_bytes(gzip.compress(path.read_bytes()))

    return write_packed


# --- reading ---


@pytest.mark.parametrize(
    ("name", "write"),
    [
        ("a.parquet", as_parquet),
        ("a.csv", as_text(",")),
        ("a.tsv", as_text("\t")),
        ("a.csv.gz", packed(as_text(","))),
        ("a.parquet.gz", packed(as_parquet)),
    ],
)
def test_catalogue_is_the_same_from_every_kind_of_file(name: str, write: Any, tmp_path: Path) -> None:
    write(tmp_path / name)
    catalogue = Catalogue.read(tmp_path / name)
    assert catalogue.n_rows == 4
    assert catalogue.columns == {"brand": "text", "price": "number", "stock": "integer", "isNew": "boolean"}
    found = catalogue.of(ITEMS, SUPPORT)
    assert found.n_described == 4
    assert [found.title(idx) for idx in range(5)] == ["Ä chair", None, None, "Red lamp", "Blue LAMP"]
    assert found.having({"price": [19.99]}).tolist() == [4]


def test_titles_and_ids_of_a_text_file_stay_as_they_are_spelled(tmp_path: Path) -> None:
    (tmp_path / "a.tsv").write_text('code\ttitle\tnote\n1.0\t1984\t"two\nlines"\n2.0\t007\tone\n')
    found = Catalogue.read(tmp_path / "a.tsv", id_column="code").of(Vocabulary(["2.0", "1.0"]), np.ones(2))
    assert [found.title(0), found.title(1)] == ["007", "1984"]
    assert found.having({"note": ["two\nlines"]}).tolist() == [1]


def test_text_and_float_ids_meet_a_vocabulary_of_integers(tmp_path: Path) -> None:
    for name, ids in {"text": ["10", "20", "x"], "floats": [10.0, 20.0, 5.0]}.items():
        papq.write_table(pa.table({"ItemId": ids, "title": ["a", "b", "c"]}), tmp_path / name)
        found = Catalogue.read(tmp_path / name).of(ITEMS, SUPPORT)
        assert (found.n_described, found.title(3), found.title(4)) == (2, "a", "b")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "cannot read the catalogue .*Mend the file"),
        ("ItemId,title\n", "has no rows. Give a row for each item"),
        ("id,title\n1,a\n", r"no column 'ItemId' in the catalogue .*\(it has: id, title\)"),
        ("ItemId\n1\n2\n1\n1\n", "item 1 stands 3 times .* and 2 of its 4 ids are distinct. Keep one row"),
        ("ItemId,a\n1,x\n,y\n", "1 rows of .* have no ItemId. Give every item its id"),
        ("ItemId,title,Title\n1,x,y\n", "two columns 'title' and 'Title'. Keep or rename one"),
        ("ItemId,a\n1,x,y\n", "cannot read the catalogue .*Expected 2 columns, got 3"),
    ],
)
def test_wrong_file_is_refused(content: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(content)
    with pytest.raises(DataError, match=message):
        Catalogue.read(tmp_path / "a.csv")


def test_missing_and_unreadable_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"there is no catalogue .*nowhere.csv. Check the path"):
        Catalogue.read(tmp_path / "nowhere.csv")
    with pytest.raises(DataError, match=r"cannot read the catalogue .*directory"):
        Catalogue.read(tmp_path)
    (tmp_path / "a.csv").write_bytes(b"PAR1 and then nothing")
    with pytest.raises(DataError, match="cannot read the catalogue"):
        Catalogue.read(tmp_path / "a.csv")
    (tmp_path / "a.csv").write_bytes(b"ItemId,title\n1,\xff\xfe\n")
    with pytest.raises(DataError, match=r"cannot read the catalogue .*(UTF8|utf-8)"):
        Catalogue.read(tmp_path / "a.csv")


@pytest.mark.parametrize(
    ("column", "message"),
    [
        (pa.array([{"a": 1}]), "column 'ItemId' of .* is of type struct"),
        (pa.array([0.5]), "holds fractions"),
        (pa.array([[1]]), "Give integers or text as item ids"),
    ],
)
def test_ids_of_another_type_are_refused(column: pa.Array, message: str, tmp_path: Path) -> None:
    papq.write_table(pa.table({"ItemId": column}), tmp_path / "a.parquet")
    with pytest.raises(DataError, match=message):
        Catalogue.read(tmp_path / "a.parquet")


# --- titles and pictures ---


def test_items_without_a_catalogue_have_ids_only() -> None:
    for bare in (ItemDetails(ITEMS, SUPPORT), Catalogue.empty().of(ITEMS, SUPPORT)):
        assert (bare.n_described, bare.columns, bare.picture_origins) == (0, {}, frozenset())
        assert (bare.title(0), bare.picture(0), bare.picture_file(0)) == (None, None, None)
        assert bare.search("", 2).tolist() == [2, 1]
        assert bare.search("4", 2).tolist() == [0]
        assert bare.having({}).tolist() == [0, 1, 2, 3, 4]
        with pytest.raises(ConfigError, match=r"no column 'brand' to filter by \(the catalogue has: none\)"):
            bare.having({"brand": ["acme"]})


def test_pictures_are_web_addresses_or_relative_paths(shop: ItemDetails) -> None:
    assert [shop.picture(idx) for idx in range(5)] == [None, None, None, "https://cdn.example/a.png", "img/b.png"]


def test_picture_origins_cannot_add_to_a_policy(tmp_path: Path) -> None:
    said = [
        "https://CDN.example/a.png",
        "https://cdn.example/b.png?x=1",
        "http://a.example:8080",
        "https://a.example; script-src *",
        "https://user@b.example/x",
        "https://b.example' 'unsafe-inline/x",
        "https://b.example/x\nX: y",
        "//c.example/x",
        "data:image/png;base64,AAAA",
        "img/a.png",
    ]
    ids = list(range(len(said)))
    found = details(pa.table({"ItemId": ids, "picture": said}), tmp_path, Vocabulary(ids), np.ones(len(said)))
    assert found.picture_origins == {"https://cdn.example", "http://a.example:8080"}
    assert [idx for idx in ids if found.picture(idx) is not None] == [0, 1, 2, 9]


def test_picture_files_never_leave_the_folder_and_are_images(tmp_path: Path) -> None:
    folder = tmp_path / "shop"
    (folder / "img").mkdir(parents=True)
    for path in (folder / "img" / "a.PNG", folder / "b.svg", folder / "c.txt", tmp_path / "secret.png"):
        path.write_bytes(b"x")
    (folder / "inside.png").symlink_to(folder / "img" / "a.PNG")
    (folder / "outside.png").symlink_to(tmp_path / "secret.png")
    (folder / "text.png").symlink_to(folder / "c.txt")
    (folder / "round.png").symlink_to(folder / "round.png")
    (folder / "up").symlink_to(tmp_path)
    good = ["img/a.PNG", "./img/a.PNG", "inside.png"]
    bad = [
        "../secret.png", "img/../../secret.png", str(tmp_path / "secret.png"), "outside.png", "up/secret.png",
        "text.png", "round.png", "b.svg", "c.txt", "items.parquet", "img", ".", "none.png", "img\\a.PNG", "a\0.png",
        "file:img/a.PNG", "x" * 5000 + ".png",
    ]  # fmt: skip
    ids = list(range(len(good + bad)))
    found = details(pa.table({"ItemId": ids, "picture": good + bad}), folder, Vocabulary(ids), np.ones(len(ids)))
    assert {found.picture_file(idx) for idx in range(3)} == {(folder / "img" / "a.PNG").resolve()}
    assert [said for idx, said in enumerate(good + bad) if idx >= 3 and found.picture_file(idx)] == []


# --- filters ---


@pytest.mark.parametrize(
    ("where", "item_ids"),
    [
        ({"brand": ["acme"]}, [20, 30]),
        ({"brand": ["007"]}, [10]),
        ({"brand": [7]}, []),
        ({"brand": ["acme", "007", "acme"]}, [10, 20, 30]),
        ({"brand": []}, []),
        ({"price": [5]}, [10, 30]),
        ({"price": ["5.0"]}, [10, 30]),
        ({"price": [19.99]}, [20]),
        ({"price": ["cheap"]}, []),
        ({"price": [float("nan"), float("inf")]}, []),
        ({"stock": [2**60 + 1]}, [30]),
        ({"stock": [str(2**60 + 1)]}, [30]),
        ({"stock": [2**60]}, []),
        ({"stock": [5.0, "-1", 0.5, 2**70, "inf"]}, [10, 20]),
        ({"stock": [True, False]}, []),
        ({"isNew": [True]}, [10, 30]),
        ({"isNew": ["false"]}, [20]),
        ({"isNew": [1]}, []),
        ({"brand": ["acme"], "price": [5.0]}, [30]),
        ({"brand": ["acme"], "price": [5.0], "isNew": [False]}, []),
    ],
)
def test_having_compares_as_the_column_does(where: Any, item_ids: list[int], shop: ItemDetails) -> None:
    for _ in range(2):  # found, then remembered
        found = shop.having(where)
        assert found.dtype == np.int32
        assert sorted(ITEMS.ids_of(found)) == item_ids
        assert (np.diff(found) > 0).all()


def test_having_tells_one_from_true(tmp_path: Path) -> None:
    found = details(pa.table({"ItemId": [10, 20], "a": ["1", "true"]}), tmp_path)
    assert [found.having({"a": [value]}).tolist() for value in (1, True, 1.0, "true")] == [[3], [4], [3], [4]]


def test_having_of_lists_and_of_other_parquet_types(tmp_path: Path) -> None:
    table = pa.table(
        {
            "ItemId": [10, 20, 30],
            "tags": [["a", "b", "a"], None, ["b"]],
            "size": pa.array([0.1, 0.2, None], pa.float32()),
            "kind": pa.array(["x", "y", "x"]).dictionary_encode(),
            "since": pc.cast(pa.array([0, 1, 1]), pa.int32()).cast(pa.date32()),
            "none": pa.nulls(3),
        }
    )
    found = details(table, tmp_path)
    assert found.having({"tags": ["a"]}).tolist() == [3]
    assert found.having({"tags": ["b"]}).tolist() == [1, 3]
    assert found.having({"size": [0.1]}).tolist() == [3]
    assert found.having({"kind": ["x"]}).tolist() == [1, 3]
    assert found.having({"since": ["1970-01-02"]}).tolist() == [1, 4]
    assert found.having({"none": ["x"]}).tolist() == []


def test_having_of_an_unknown_column_raises(shop: ItemDetails) -> None:
    with pytest.raises(ConfigError, match=r"no column 'Brand' to filter by \(the catalogue has: brand, price, stock"):
        shop.having({"Brand": ["acme"]})


def test_having_cannot_be_changed_by_its_caller(shop: ItemDetails) -> None:
    for where in ({"brand": ["acme"]}, {"brand": ["acme", "007"]}):
        with pytest.raises(ValueError, match="read-only"):
            shop.having(where)[0] = 0


def test_having_remembers_within_bounds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gru4rec.serve.items.filter._REMEMBERED_BYTES", 2000)
    table = pa.table({"ItemId": [10, 20], "a": [1, 2]})
    found = details(table, tmp_path)
    first = found.having({"a": [1, 2]})
    assert found.having({"a": [1, 2]}) is first
    for value in range(100):
        found.having({"a": [1, value]})
    assert found._filter._n_bytes <= 2000
    assert len(found._filter._answers) in range(1, 5)
    assert found.having({"a": [1, 2]}) is not first


def test_having_remembers_no_question_that_is_larger_than_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gru4rec.serve.items.filter._REMEMBERED_BYTES", 20_000)
    found = details(pa.table({"ItemId": [10, 20], "a": ["x", "y"]}), tmp_path)
    first = found.having({"a": ["x", *("z" * n for n in range(50, 100))]})
    assert first.tolist() == [3]
    for n in range(10):
        assert found.having({"a": ["y", *(f"{n} {m}" + "z" * 500 for m in range(1000))]}).tolist() == [4]
    assert not found._filter._answers


def test_having_of_thousands_of_values_is_their_union(tmp_path: Path) -> None:
    n_items = 50_000
    table = pa.table({"ItemId": np.arange(n_items), "code": [f"c{n % 40_000}" for n in range(n_items)]})
    found = details(table, tmp_path, Vocabulary(np.arange(n_items)), np.ones(n_items))
    values: list[Any] = [f"c{n}" for n in range(0, 50_000, 5)]
    assert found.having({"code": values}).tolist() == [n for n in range(n_items) if (n % 40_000) % 5 == 0]


def test_having_is_the_same_from_several_threads(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    n_items = 20_000
    columns = {name: rng.integers(0, 5, n_items) for name in "abc"}
    found = details(
        pa.table({"ItemId": np.arange(n_items), **columns}), tmp_path, Vocabulary(np.arange(n_items)), np.ones(n_items)
    )
    wrong: list[Any] = []

    def ask(seed: int) -> None:
        draw = np.random.default_rng(seed)
        for _ in range(50):
            a, b = draw.integers(0, 5, 2).tolist()
            expected = np.flatnonzero((columns["a"] == a) & (columns["b"] == b))
            if not np.array_equal(found.having({"a": [a], "b": [b]}), expected):
                wrong.append((a, b))

    threads = [threading.Thread(target=ask, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


# --- search ---


def test_search_finds_titles_and_beginnings_of_ids(shop: ItemDetails) -> None:
    def ids(text: str, limit: int = 10) -> list[int]:
        return ITEMS.ids_of(shop.search(text, limit))

    assert ids("lamp") == [10, 20]  # 7 clicks, 3 clicks
    assert ids(" LAMP ", 1) == [10]
    assert ids("ä") == [40]
    assert ids("1") == [10]
    assert ids("9") == [99]
    assert ids("0") == []
    assert ids(".") == []
    assert ids("(") == []
    assert ids("pb") == []  # "Red lamp" is followed by "Blue LAMP": not one text
    assert ids("p\nb") == ids("p b") == []
    assert ids("") == [99, 30, 10, 20, 40]  # 9, 7, 7 in item-index order, 3, 1
    assert ids("  ", 2) == [99, 30]


def test_search_puts_the_very_id_first() -> None:
    items = Vocabulary(["a1", "a", "a2"])
    found = ItemDetails(items, np.array([5, 1, 9]))
    assert items.ids_of(found.search("a", 2)) == ["a", "a2"]
    assert items.ids_of(found.search("A", 2)) == ["a2", "a1"]


def test_search_is_that_of_looking_at_every_item(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gru4rec.serve.items.find._BYTES_AT_ONCE", 7)
    rng = np.random.default_rng(1)
    letters = np.array(list("abÉ√"))
    titles = ["".join(letters[rng.integers(0, 4, rng.integers(0, 6))]) for _ in range(300)]
    support = rng.integers(0, 9, 300)
    ids = [f"{number:03}" for number in range(300)]
    found = details(pa.table({"ItemId": ids, "title": titles}), tmp_path, Vocabulary(ids), support)
    order = sorted(range(300), key=lambda idx: -support[idx])
    for text in ("a", "É", "aé", "ba√", "bab", "aaaa", "√√", "00", "2"):
        expected = [idx for idx in order if text.lower() in titles[idx].lower() or ids[idx].startswith(text)]
        for limit in (1, 3, 300):
            assert found.search(text, limit).tolist() == expected[:limit], text


def test_a_million_items_answer_at_once() -> None:
    """Bounds are four times what was asked for, for machines that are busy."""
    n_items = 1_000_000
    rng = np.random.default_rng(0)
    ids = pa.array(np.arange(n_items))
    titles = pc.binary_join_element_wise(ids.cast(pa.string()), "a rather usual title of an item", " ")
    columns = {"few": pa.array(rng.integers(0, 50, n_items)), "many": titles}
    catalogue = Catalogue(ids, titles, pa.nulls(n_items, pa.string()), columns, None)
    found = catalogue.of(Vocabulary(ids), rng.integers(0, 1000, n_items))

    def best_ms(work: Callable[[], Any]) -> float:
        times = []
        for _ in range(5):
            started = time.perf_counter()
            work()
            times.append((time.perf_counter() - started) * 1e3)
        return min(times)

    for text in ("is in no title at all", "999999 a", "e", "item1"):
        assert best_ms(lambda text=text: found.search(text, 20)) < 200
    for where in ({"few": [7]}, {"many": ["5 a rather usual title of an item"]}, {"few": [1, 2, 3], "many": ["x"]}):
        assert best_ms(lambda where=where: found.having(where)) < 4
