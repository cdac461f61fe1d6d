"""Reading models of the official program: right for the files it writes, inert for those somebody forged.

Files are written by the real torch.save from throw-away classes that stand in for the official ones, which
exist only while saving, or by hand where a file must be wrong.
"""

from __future__ import annotations

import builtins
import json
import os
import pickle
import re
import subprocess
import sys
import types
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import GOLDEN, official_models

from gru4rec.convert import inert_pickle
from gru4rec.convert.official import OfficialModel, read_official_model
from gru4rec.errors import ModelFileError

torch = pytest.importorskip("torch")
pd = pytest.importorskip("pandas")

SAMPLES = ("official_numpy126_pandas153", "official_numpy24_pandas31")
N_ITEMS = 5
INT_IDS = [50, 7, -3, 2**40, 12]
TEXT_IDS = ["b", "é", "a", "12", "zz"]
DATA_ITEMS = np.array([0, 1, 0, 4, 4, 4], dtype=np.int32)  # support 2 1 0 0 3


# --- files ---


def save_official(
    path: Path,
    monkeypatch: pytest.MonkeyPatch,
    *,
    layers: tuple[int, ...] = (4,),
    embedding: Any = 0,
    constrained: bool = True,
    ids: Any = INT_IDS,
    change: Callable[[Any], None] = lambda gru: None,
    **save_options: Any,
) -> Any:
    """Save an object that looks like the official one, with the real torch.save, and return it."""
    module = types.ModuleType("gru4rec_pytorch")
    bases = {"GRU4Rec": object, "SessionDataIterator": object}
    bases |= {"GRU4RecModel": torch.nn.Module, "GRUEmbedding": torch.nn.Module}
    for name, base in bases.items():
        setattr(module, name, type(name, (base,), {"__module__": "gru4rec_pytorch"}))
    gru = module.GRU4Rec()
    gru.device, gru.layers, gru.embedding, gru.constrained_embedding = (
        "cpu",
        list(layers),
        embedding,
        constrained,
    )
    gru.loss, gru.learning_rate, gru.n_epochs, gru.error_during_train = "bpr-max", np.float64(0.05), 3, False
    gru.data_iterator = module.SessionDataIterator()
    gru.data_iterator.itemidmap = pd.Series(np.arange(N_ITEMS), index=pd.Index(ids, name="ItemId"), name="ItemIdx")
    gru.data_iterator.data_items = DATA_ITEMS
    gru.model = build_network(module, layers, embedding, constrained)
    change(gru)
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "gru4rec_pytorch", module)
        torch.save(gru, path, **save_options)
    return gru


def build_network(module: Any, layers: tuple[int, ...], embedding: Any, constrained: bool) -> Any:
    """Build the official object's network: modules E, G, GE, Wy, By by input mode, with random weights."""
    network = module.GRU4RecModel()
    width = layers[0] if embedding == "layersize" else embedding
    if constrained:
        width = layers[-1]
    elif width:
        network.E = torch.nn.Embedding(N_ITEMS, width)
    if width:
        network.G = torch.nn.ModuleList(
            torch.nn.GRUCell(n_in, n) for n_in, n in zip((width, *layers), layers, strict=False)
        )
    else:
        network.GE, n = module.GRUEmbedding(), layers[0]
        network.GE.Wrz0 = torch.nn.Parameter(torch.randn(n, 2 * n))
        network.GE.Wh0 = torch.nn.Parameter(torch.randn(n, n))
        network.GE.Bh0 = torch.nn.Parameter(torch.randn(3 * n))
        network.GE.Wx0 = torch.nn.Embedding(N_ITEMS, 3 * n)
    network.Wy, network.By = torch.nn.Embedding(N_ITEMS, layers[-1]), torch.nn.Embedding(N_ITEMS, 1)
    return network


def rewrite(path: Path, change: Callable[[str, bytes], bytes | None], compression: int = zipfile.ZIP_STORED) -> Path:
    """Copy a zip beside itself with each member's bytes changed; None drops the member."""
    target = path.with_name("changed.pt")
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(target, "w", compression) as new:
        for name in old.namelist():
            content = change(name, old.read(name))
            if content is not None:
                new.writestr(name, content)
    return target


def write_pickle(path: Path, pickled: bytes) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("model/data.pkl", pickled)
    return path


def assert_refused(path: Path, match: str) -> None:
    with pytest.raises(ModelFileError, match=match) as caught:
        read_official_model(path)
    assert path.name in str(caught.value)


@pytest.fixture
def saved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    save_official(tmp_path / "good.pt", monkeypatch)
    return tmp_path / "good.pt"


# --- what the official program writes ---


@pytest.mark.parametrize(
    ("layers", "embedding", "constrained", "names"),
    [
        ((4,), 0, True, "G.0 Wy By"),
        ((6, 4), 0, True, "G.0 G.1 Wy By"),
        ((4,), 3, False, "E G.0 Wy By"),
        ((4, 6), "layersize", False, "E G.0 G.1 Wy By"),
        ((4,), 0, False, "GE Wy By"),
    ],
)
@pytest.mark.parametrize("protocol", [2, 4])
def test_read_each_input_mode_gives_every_weight(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    layers: Any,
    embedding: Any,
    constrained: bool,
    names: str,
    protocol: int,
) -> None:
    path = tmp_path / "m.pt"
    gru = save_official(
        path,
        monkeypatch,
        layers=layers,
        embedding=embedding,
        constrained=constrained,
        pickle_protocol=protocol,
    )
    model = read_official_model(path)
    expected = {name: tensor.detach().numpy() for name, tensor in gru.model.named_parameters()}
    assert set(model.weights) == set(expected)
    assert list(dict.fromkeys(name.rsplit(".", 1)[0].removesuffix(".Wx0") for name in model.weights)) == names.split()
    for name, array in expected.items():
        np.testing.assert_array_equal(model.weights[name], array, strict=True)
        assert model.weights[name].flags.writeable


def test_read_settings_are_plain_values_of_those_present(saved: Path) -> None:
    assert read_official_model(saved).settings == {
        "layers": [4], "loss": "bpr-max", "learning_rate": 0.05, "n_epochs": 3,
        "embedding": 0, "constrained_embedding": True,
    }  # fmt: skip
    assert type(read_official_model(saved).settings["learning_rate"]) is float


@pytest.mark.parametrize(
    "ids",
    [INT_IDS, np.array([5, 3, 9, 1, 0], dtype=np.int32), np.array(INT_IDS, dtype=object)],
    ids=["i8", "i4", "object"],
)
def test_read_integer_ids_gives_int64_in_index_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ids: Any) -> None:
    save_official(tmp_path / "m.pt", monkeypatch, ids=ids)
    item_ids = read_official_model(tmp_path / "m.pt").item_ids
    assert item_ids.dtype == np.int64
    assert item_ids.tolist() == list(ids)


def text_index(kind: str, texts: list[Any]) -> Any:
    if kind == "object":
        return pd.Index(np.array(texts, dtype=object), dtype=object)
    if int(pd.__version__.split(".")[0]) < 3:
        pytest.skip("pandas before 3 keeps text ids as objects")
    if kind == "pyarrow":
        pytest.importorskip("pyarrow")
    return pd.Index(pd.array(texts, dtype=pd.StringDtype(kind, na_value=np.nan)))


@pytest.mark.parametrize("kind", ["object", "python", "pyarrow"])
def test_read_text_ids_gives_texts_however_pandas_kept_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    for ids in (text_index(kind, TEXT_IDS), text_index(kind, ["cut", "off", *TEXT_IDS, "too"])[2:-1]):
        save_official(tmp_path / "m.pt", monkeypatch, ids=ids)
        item_ids = read_official_model(tmp_path / "m.pt").item_ids
        assert item_ids.dtype == object
        assert item_ids.tolist() == TEXT_IDS


@pytest.mark.parametrize("kind", ["object", "python", "pyarrow"])
def test_read_missing_text_id_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    save_official(tmp_path / "m.pt", monkeypatch, ids=text_index(kind, ["a", "b", None, "d", "e"]))
    assert_refused(tmp_path / "m.pt", "not all integers or all texts|have gaps")


@pytest.mark.parametrize("alias", ["string", "large_string"])
def test_texts_slice_of_an_arrow_array_starts_at_its_offset(alias: str) -> None:
    pa = pytest.importorskip("pyarrow")
    pickled = pickle.dumps(pa.array(TEXT_IDS, type=getattr(pa, alias)()).slice(1, 3), 2)
    assert inert_pickle.decode_texts(inert_pickle.load_records(pickled)) == TEXT_IDS[1:4]


def test_read_damaged_arrow_ids_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_official(tmp_path / "m.pt", monkeypatch, ids=text_index("pyarrow", TEXT_IDS))
    ends = np.cumsum([0] + [len(text.encode()) for text in TEXT_IDS]).astype("<i8")
    for at, end in ((0, -1), (2, 0), (5, 1000)):  # before the text, backwards, behind the text
        forged = ends.copy()
        forged[at] = end
        old, new = (x.tobytes().decode("latin1").encode() for x in (ends, forged))
        length = [len(x).to_bytes(4, "little") for x in (old, new)]

        def forge(_: str, content: bytes, parts: Any = (length[0] + old, length[1] + new)) -> bytes:
            return content.replace(*parts)

        assert_refused(rewrite(tmp_path / "m.pt", forge), "damaged Arrow array")


def test_read_vocabulary_in_another_order_is_sorted_by_index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def shuffle(gru: Any) -> None:
        gru.data_iterator.itemidmap = pd.Series([2, 0, 1, 4, 3], index=[10, 20, 30, 40, 50])

    save_official(tmp_path / "m.pt", monkeypatch, change=shuffle)
    assert read_official_model(tmp_path / "m.pt").item_ids.tolist() == [20, 30, 10, 50, 40]


def test_read_support_counts_training_rows_and_is_none_without_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, saved: Path
) -> None:
    support = read_official_model(saved).support
    assert support is not None
    assert support.dtype == np.int64
    assert support.tolist() == [2, 1, 0, 0, 3]
    save_official(tmp_path / "m.pt", monkeypatch, change=lambda gru: delattr(gru.data_iterator, "data_items"))
    assert read_official_model(tmp_path / "m.pt").support is None


def test_read_transposed_float64_and_view_tensors_are_copied_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def change(gru: Any) -> None:
        gru.model.double()
        gru.model.G[0].weight_hh = torch.nn.Parameter(torch.randn(4, 12, dtype=torch.float64).T)
        gru.model.Wy.weight = torch.nn.Parameter(torch.randn(N_ITEMS + 2, 4, dtype=torch.float64)[2:])

    gru = save_official(tmp_path / "m.pt", monkeypatch, change=change)
    weights = read_official_model(tmp_path / "m.pt").weights
    for name, tensor in gru.model.named_parameters():
        np.testing.assert_array_equal(weights[name], tensor.detach().numpy(), strict=True)


def test_read_big_endian_file_swaps_bytes(saved: Path) -> None:
    def swap(name: str, content: bytes) -> bytes:
        if name.endswith("/byteorder"):
            return b"big"
        return np.frombuffer(content, "<f4").astype(">f4").tobytes() if "/data/" in name else content

    expected = read_official_model(saved).weights["Wy.weight"]
    np.testing.assert_array_equal(read_official_model(rewrite(saved, swap)).weights["Wy.weight"], expected, strict=True)


def test_read_imports_no_torch_and_no_pandas(saved: Path) -> None:
    code = (
        "import sys; from gru4rec.convert.official import *; m = read_official_model(sys.argv[1]); "
        "assert len(m.item_ids) == 5 and not {'torch', 'pandas', 'pyarrow'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code, str(saved)], check=True, cwd=Path(__file__).parents[2])


# --- the two sample models ---


def sigmoid(x: np.ndarray) -> np.ndarray:
    return np.asarray(1 / (1 + np.exp(-x)))


def score_session(model: OfficialModel, session: list[str]) -> np.ndarray:
    """Score all items after a session by the reset-after formulas of the papers, in float64."""
    w = {name: array.astype(np.float64) for name, array in model.weights.items()}
    table = w.get("E.weight", w["Wy.weight"])
    layers = model.settings["layers"]
    states = [np.zeros(size) for size in layers]
    for item_id in session:
        x = table[model.item_ids.tolist().index(item_id)]
        for i, h in enumerate(states):
            in_r, in_z, in_n = np.split(w[f"G.{i}.weight_ih"] @ x + w[f"G.{i}.bias_ih"], 3)
            h_r, h_z, h_n = np.split(w[f"G.{i}.weight_hh"] @ h + w[f"G.{i}.bias_hh"], 3)
            z = sigmoid(in_z + h_z)
            x = states[i] = (1 - z) * np.tanh(in_n + sigmoid(in_r + h_r) * h_n) + z * h
    scores: np.ndarray = w["Wy.weight"] @ x + w["By.weight"][:, 0]
    return scores


@pytest.mark.parametrize("name", SAMPLES)
def test_read_sample_recommends_what_the_official_program_did(name: str) -> None:
    folder = official_models()
    recorded = json.loads((folder / f"{name}.json").read_text())
    model = read_official_model(folder / f"{name}.pt")
    for key in ("layers", "loss", "embedding", "constrained_embedding"):
        assert model.settings[key] == recorded[key]
    assert len(model.settings) == 15
    scores = score_session(model, recorded["session"])
    top = np.argsort(-scores, kind="stable")[:10]
    assert model.item_ids[top].tolist() == recorded["top10_item_ids"]
    np.testing.assert_allclose(scores[top], recorded["top10_scores"], rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", SAMPLES)
def test_read_sample_support_and_vocabulary_agree_with_its_training_log(name: str) -> None:
    path = official_models() / f"{name}.pt"
    items = [line.split("\t")[1] for line in (GOLDEN / "train.tsv").read_text().splitlines()[1:]]
    counts: OrderedDict[str, int] = OrderedDict()
    for item in items:
        counts[item] = counts.get(item, 0) + 1
    model = read_official_model(path)
    assert model.support is not None
    assert dict(zip(model.item_ids.tolist(), model.support.tolist(), strict=True)) == counts
    assert model.item_ids.tolist() == list(counts)


# --- hostile and broken files ---


class Call:
    """Pickles as a call of any function."""

    def __init__(self, function: Callable[..., Any], *args: Any) -> None:
        self.call = (function, args)

    def __reduce__(self) -> Any:
        return self.call


def hostile_calls(marker: Path) -> list[Call]:
    code = f"open({str(marker)!r}, 'w').close()"
    return [
        Call(os.system, f"touch {marker}"),
        Call(eval, code),
        Call(exec, code),
        Call(builtins.open, str(marker), "w"),
        Call(os.mkdir, str(marker)),
        Call(subprocess.Popen, ["touch", str(marker)]),
        Call(getattr, Call(__import__, "os"), "system"),
    ]


@pytest.mark.parametrize("which", range(7))
@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_read_pickle_that_calls_a_function_calls_nothing(tmp_path: Path, which: int, protocol: int) -> None:
    marker = tmp_path / "marker"
    pickled = pickle.dumps(hostile_calls(marker)[which], protocol)
    if which == 0:  # the file works where it is trusted
        pickle.loads(pickled)
        assert marker.exists()
        marker.unlink()
    assert_refused(write_pickle(tmp_path / "m.pt", pickled), "official GRU4Rec")
    assert not marker.exists()


@pytest.mark.parametrize("which", range(7))
def test_read_hostile_attribute_beside_good_ones_is_ignored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, which: int
) -> None:
    marker = tmp_path / "marker"
    attack = hostile_calls(marker)[which]
    save_official(tmp_path / "m.pt", monkeypatch, change=lambda gru: setattr(gru, "loss_function", attack))
    assert read_official_model(tmp_path / "m.pt").item_ids.tolist() == INT_IDS
    assert not marker.exists()
    save_official(tmp_path / "m.pt", monkeypatch, change=lambda gru: setattr(gru, "layers", attack))
    assert_refused(tmp_path / "m.pt", "setting 'layers' is not a plain value")
    assert not marker.exists()


def test_read_named_module_is_not_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "evil_on_path.py").write_text(f"open({str(tmp_path / 'marker')!r}, 'w').close()\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert_refused(write_pickle(tmp_path / "m.pt", b"\x80\x02cevil_on_path\nGRU4Rec\n."), "official GRU4Rec")
    assert "evil_on_path" not in sys.modules
    assert not (tmp_path / "marker").exists()


@pytest.mark.parametrize(
    ("pickled", "match"),
    [
        (b"\x80\x02}r\xff\xff\xff\x7f.", "jumps from memo slot 0 to 2147483647"),
        (b"\x80\x02}(" + b")" + b"\x85" * 1_000_000 + b"K\x01u.", "more than 5000 objects"),
        (b"\x80\x02" + b"(" * 100_000 + b"l" * 100_000 + b".", "foreign opcode LIST"),
        (b"\x80\x02\x82\x01.", "foreign opcode EXT1"),
        (b"\x80\x02\x8b\xff\xff\xff\x7f.", "foreign opcode LONG4|damaged"),
        (b"\x80\x02X\xff\xff\xff\x7fabc.", "damaged"),
        (b"\x80\x02cx\ny\nN}X\x04\x00\x00\x00pathK\x01s\x86b.", "damaged"),  # BUILD on a global, with slots
        (b"\x80\x02}]K\x01s.", "damaged"),  # a key that cannot be hashed
        (b"\x80\x02K\x01Q.", "damaged"),  # a persistent id that is no tuple
        (b"\x80\x02K\x01.", "holds 'int' where '.GRU4Rec' was expected"),
        (b"\x80\x02cgru4rec_pytorch\nGRU4Rec\n.", "holds 'type'"),
        (b"\x80\x02cgru4rec_pytorch\nGRU4Rec\n)\x81}b.", "no 'data_iterator'"),
        (b"\x80\x02ccollections\nOrderedDict\n)R(K\x01K\x02u.", "holds 'collections.OrderedDict'"),
        (b"\x80\x04\x8c\x01xcx\ny\n)}\x92.", "holds 'x.y'"),  # NEWOBJ_EX
        (b"", "damaged"),
    ],
)
def test_read_hand_made_pickle_is_refused_with_a_reason(tmp_path: Path, pickled: bytes, match: str) -> None:
    assert_refused(write_pickle(tmp_path / "m.pt", pickled), match)


def test_read_nested_lists_do_not_crash(tmp_path: Path) -> None:
    assert_refused(
        write_pickle(tmp_path / "m.pt", b"\x80\x02" + b"]" * 200_000 + b"a" * 199_999 + b"."), "holds 'list'"
    )


def test_read_not_a_zip_says_which_torch_writes_what(tmp_path: Path) -> None:
    path = tmp_path / "m.pt"
    torch.save({"a": torch.ones(2)}, path, _use_new_zipfile_serialization=False)
    assert_refused(path, "not a whole zip file, as torch 1.6 and newer write")
    path.write_bytes(b"")
    assert_refused(path, "not a whole zip file")


def test_read_truncated_file_is_refused(saved: Path) -> None:
    content = saved.read_bytes()
    for n_bytes in (10, len(content) // 2, len(content) - 30):
        saved.write_bytes(content[:n_bytes])
        assert_refused(saved, "not a whole zip file|damaged")


def test_read_flipped_byte_in_a_weight_is_refused(saved: Path) -> None:
    content = bytearray(saved.read_bytes())
    with zipfile.ZipFile(saved) as archive:
        at = archive.read("good/data/0")
    content[content.index(at)] ^= 1
    saved.write_bytes(content)
    assert_refused(saved, "CRC")


def test_read_missing_file_and_folder_are_refused(tmp_path: Path) -> None:
    assert_refused(tmp_path / "absent.pt", "no model file .*Check the path")
    assert_refused(tmp_path, "is a folder")


def test_read_zip_without_pickle_or_with_two_is_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "m.pt", "w") as archive:
        archive.writestr("hello.txt", "hello")
    assert_refused(tmp_path / "m.pt", "0 members 'data.pkl'")
    with zipfile.ZipFile(tmp_path / "m.pt", "w") as archive:
        archive.writestr("a/data.pkl", b"\x80\x02N.")
        archive.writestr("b/data.pkl", b"\x80\x02N.")
    assert_refused(tmp_path / "m.pt", "2 members 'data.pkl'")


def test_read_missing_storage_is_refused(saved: Path) -> None:
    assert_refused(rewrite(saved, lambda name, content: None if "/data/0" in name else content), "data/0' is missing")


@pytest.mark.parametrize("n_less", [1, 4, 16])
def test_read_storage_shorter_than_its_tensor_is_refused(saved: Path, n_less: int) -> None:
    short = rewrite(saved, lambda name, content: content[:-n_less] if "/data/0" in name else content)
    assert_refused(short, "not what its tensor asks for|damaged")


def test_read_storage_longer_than_declared_is_refused(saved: Path) -> None:
    long = rewrite(saved, lambda name, content: content + bytes(4) if "/data/0" in name else content)
    assert_refused(long, "not what its tensor asks for")


def test_read_storage_key_cannot_leave_the_archive(saved: Path, tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"\0" * 4096)
    key = re.compile(rb"(FloatStorage\n[^X]+)X\x01\0\0\x000")
    forged = rewrite(saved, lambda _, content: key.sub(b"\\1X\x04\0\0\0../a", content))
    assert_refused(forged, r"data/\.\./a' is missing")


def test_read_compressed_bomb_is_refused_before_it_is_unpacked(saved: Path) -> None:
    def inflate(name: str, content: bytes) -> bytes:
        return bytes(200_000_000) if "/data/0" in name else content

    bomb = rewrite(saved, inflate, zipfile.ZIP_DEFLATED)
    assert bomb.stat().st_size < 1_000_000
    assert_refused(bomb, "is compressed")


def test_read_storage_named_by_many_tensors_is_not_copied_without_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def share(gru: Any) -> None:  # 60 tensors of one storage that makes up most of the file
        weight = torch.nn.Parameter(torch.zeros(3 * 64, 64))
        for cell in gru.model.G:
            cell.weight_ih = cell.weight_hh = weight

    save_official(tmp_path / "m.pt", monkeypatch, layers=(64,) * 30, change=share)
    assert_refused(tmp_path / "m.pt", "its members claim")


def forged_tensor(offset: int, size: Any, stride: Any) -> Call:
    """Pickle as torch would a tensor over N_ITEMS * 4 stored floats, with any offset, size and stride."""
    real = torch.arange(float(N_ITEMS * 4)).untyped_storage()
    storage = torch.storage.TypedStorage(wrap_storage=real, dtype=torch.float32, _internal=True)
    return Call(torch._utils._rebuild_tensor_v2, storage, offset, size, stride, False, OrderedDict())


@pytest.mark.parametrize(
    ("offset", "size", "stride", "match"),
    [
        (0, (N_ITEMS, 4), (0, 0), "strides that leave gaps or overlap"),
        (0, (N_ITEMS, 4), (1, 1), "strides that leave gaps or overlap"),
        (0, (N_ITEMS, 4), (8, 2), "strides that leave gaps or overlap"),
        (19, (N_ITEMS, 4), (-4, -1), "negative offset"),
        (-4, (N_ITEMS, 4), (4, 1), "negative offset"),
        (0, (N_ITEMS, -4), (4, 1), "negative offset"),
        (0, (-N_ITEMS, -4), (4, 1), "negative offset"),
        (1, (N_ITEMS, 4), (4, 1), "not what its tensor asks for"),
        (0, (2**62, 2**62), (2**62, 1), "not what its tensor asks for"),
        (0, (N_ITEMS, 2.0), (4, 1), "negative offset"),
        (0, (1,) * 2000, (1,) * 2000, "many dimensions"),
        (0, (N_ITEMS, 4), (4,), "damaged"),
        (0, (N_ITEMS, 2), (2, 1), r"Wy.weight is \(5, 2\), the settings ask for \(5, 4\)"),
        (0, (0, 4), (4, 1), r"Wy.weight is \(0, 4\)"),
    ],
)
def test_read_forged_tensor_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, offset: int, size: Any, stride: Any, match: str
) -> None:
    def forge(gru: Any) -> None:
        gru.model.Wy._parameters["weight"] = forged_tensor(offset, size, stride)

    save_official(tmp_path / "m.pt", monkeypatch, change=forge)
    assert_refused(tmp_path / "m.pt", match)


def set_map(series: Any) -> Callable[[Any], None]:
    return lambda gru: setattr(gru.data_iterator, "itemidmap", series)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda gru: delattr(gru.model, "Wy"), "weight 'Wy.weight' is missing"),
        (lambda gru: delattr(gru.model, "G"), "weight 'G.0.weight_ih' is missing"),
        (lambda gru: delattr(gru, "model"), "no 'model'"),
        (lambda gru: delattr(gru, "layers"), "'layers' is not a list of positive integers"),
        (lambda gru: setattr(gru, "layers", [4, 0]), "'layers' is not a list of positive integers"),
        (lambda gru: setattr(gru, "layers", [[4]]), "'layers' is not a plain value"),
        (lambda gru: setattr(gru, "layers", [5]), r"weight_ih is \(12, 4\), the settings ask for \(15, 5\)"),
        (lambda gru: gru.__dict__.update(layers=[4, 4], constrained_embedding=False), "several layers"),
        (lambda gru: gru.model.half(), "storage of type 'torch.HalfStorage'"),
        (lambda gru: setattr(gru.data_iterator, "data_items", np.array([0, 5])), "training rows name items"),
        (lambda gru: setattr(gru.data_iterator, "data_items", np.array([-1])), "training rows name items"),
        (lambda gru: setattr(gru.data_iterator, "data_items", np.zeros((2, 2), int)), "not a vector"),
        (lambda gru: setattr(gru.data_iterator, "data_items", np.array(["a"])), "other things than numbers"),
        (set_map(pd.Series([0, 1, 2, 3, 3], index=INT_IDS)), "does not number the items"),
        (set_map(pd.Series([0, 1, 2, 3, 5], index=INT_IDS)), "does not number the items"),
        (set_map(pd.Series([-1, 0, 1, 2, 3], index=INT_IDS)), "does not number the items"),
        (set_map(pd.Series([0.0, 1, 2, 3, 4], index=INT_IDS)), "does not number the items"),
        (set_map(pd.Series(np.arange(5), index=[1, 1, 2, 3, 4])), "one occurs twice"),
        (set_map(pd.Series(np.arange(5), index=[1, 1.5, 2, 3, 4])), "not all integers or all texts"),
        (set_map(pd.Series(np.arange(5), index=pd.Index(["a", 1, 2, 3, 4], dtype=object))), "not all"),
        (set_map(pd.Series([], index=pd.Index([], dtype="int64"), dtype="int64")), "not all integers"),
        (set_map(pd.Series(np.arange(4), index=INT_IDS[:4])), r"Wy.weight is \(5, 4\)"),
        (set_map({"a": 0}), "holds 'dict' where '.Series' was expected"),
    ],
)  # fmt: skip
def test_read_object_that_does_not_fit_together_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: Callable[[Any], None], match: str
) -> None:
    save_official(tmp_path / "m.pt", monkeypatch, change=change)
    assert_refused(tmp_path / "m.pt", match)


def test_read_other_torch_file_is_refused(tmp_path: Path) -> None:
    torch.save({"GRU4Rec": torch.ones(3)}, tmp_path / "m.pt")
    assert_refused(tmp_path / "m.pt", "holds 'dict' where '.GRU4Rec' was expected")
