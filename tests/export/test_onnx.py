"""ONNX files say what their models say: every input mode, cell, number of layers, kind of ids."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from export.small_models import CELLS, INTEGER_IDS, LAYERS, MODES, N_ITEMS, TEXT_IDS, save_model

from gru4rec.errors import ConfigError
from gru4rec.export.onnx_file import write_onnx
from gru4rec.export.onnx_graph import check_size
from gru4rec.export.step_graph import read_step_model
from gru4rec.export.verify import verify
from gru4rec.serve.recommender import Recommender


def exported(folder: Path, *, k: int = 20, **model_options: Any) -> tuple[Path, Path]:
    """Write a model and its ONNX file; return both."""
    model = save_model(folder / "m.gru4rec", **model_options)
    write_onnx(read_step_model(model, k), folder / "m.onnx")
    return folder / "m.onnx", model


def opened(path: Path) -> Any:
    return ort.InferenceSession(path, providers=["CPUExecutionProvider"])


def stepped(graph: Any, item_idx: list[int], state: np.ndarray) -> list[np.ndarray]:
    """Run a step of a graph of one layer; return its state, items, scores and ids."""
    names = ["next_state_0", "top_idx", "scores", "item_ids"]
    found: list[np.ndarray] = graph.run(names, {"item_idx": np.array(item_idx), "state_0": state})
    return found


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("layers", LAYERS, ids=len)
@pytest.mark.parametrize("mode", MODES)
def test_file_agrees_with_its_model(mode: str, layers: list[int], cell: str, tmp_path: Path) -> None:
    outcome = verify(*exported(tmp_path, layers=layers, gru_variant=cell, **MODES[mode]))
    assert (outcome.sessions, outcome.other_lists, outcome.agrees) == (1000, 0, True)
    assert outcome.same_lists + outcome.tied_lists == outcome.clicks > 4000
    assert 0 < outcome.score_difference < 1e-4


@pytest.mark.parametrize("ids", [INTEGER_IDS, TEXT_IDS], ids=["integers", "text"])
def test_lists_hold_the_ids_that_the_recommender_gives(ids: list[Any], tmp_path: Path) -> None:
    file, model = exported(tmp_path, ids=ids)
    clicks = [ids[3], ids[59], ids[0]]
    state = np.zeros((1, 8), dtype=np.float32)
    for item_id in clicks:
        state, _, scores, item_ids = stepped(opened(file), [ids.index(item_id)], state)
    wanted = Recommender.load(model).recommend(clicks, 20)
    assert item_ids[0].tolist() == wanted.item_ids
    np.testing.assert_allclose(scores[0], wanted.scores, atol=1e-4)


@pytest.mark.parametrize("no_click", [-1, -1000])
def test_a_row_without_a_click_keeps_its_state_and_its_list(no_click: int, tmp_path: Path) -> None:
    graph = opened(exported(tmp_path)[0])
    first = stepped(graph, [4, 9], np.zeros((2, 8), dtype=np.float32))
    second = stepped(graph, [no_click, 5], first[0])
    for before, after in zip(first, second, strict=True):
        np.testing.assert_array_equal(after[0], before[0])
    assert not np.array_equal(second[0][1], first[0][1])


def test_equal_scores_stand_in_index_order(tmp_path: Path) -> None:
    file, model = exported(
        tmp_path, changed=lambda weights: [weights[name].fill(0) for name in ("Wy.weight", "By.weight")]
    )
    top_idx = stepped(opened(file), [4, 9], np.ones((2, 8), dtype=np.float32))[1]
    assert top_idx.tolist() == [list(range(20))] * 2
    assert verify(file, model, n_sessions=10).same_lists > 10


def test_an_item_beyond_the_catalogue_is_refused(tmp_path: Path) -> None:
    graph = opened(exported(tmp_path)[0])
    with pytest.raises(Exception, match="out of"):
        stepped(graph, [N_ITEMS], np.zeros((1, 8), dtype=np.float32))


def test_file_has_the_documented_inputs_outputs_and_texts(tmp_path: Path) -> None:
    file, _ = exported(tmp_path, k=3, layers=[7, 8], ids=TEXT_IDS)
    onnx.checker.check_model(str(file), full_check=True)
    graph = opened(file)
    assert [(each.name, each.type, each.shape) for each in graph.get_inputs()] == [
        ("item_idx", "tensor(int64)", ["B"]),
        ("state_0", "tensor(float)", ["B", 7]),
        ("state_1", "tensor(float)", ["B", 8]),
    ]
    assert [(each.name, each.type, each.shape) for each in graph.get_outputs()] == [
        ("next_state_0", "tensor(float)", ["B", 7]),
        ("next_state_1", "tensor(float)", ["B", 8]),
        ("top_idx", "tensor(int64)", ["B", 3]),
        ("scores", "tensor(float)", ["B", 3]),
        ("item_ids", "tensor(string)", ["B", 3]),
    ]
    texts = graph.get_modelmeta().custom_metadata_map
    assert json.loads(texts["gru4rec.item_ids"]) == TEXT_IDS
    about = json.loads(texts["gru4rec"])
    assert (about["format"], about["k"], about["layers"], about["id_kind"]) == ("gru4rec-step", 3, [7, 8], "text")


def test_each_weight_stands_in_the_file_once(tmp_path: Path) -> None:
    """The shared item matrix above all: it is input table and output matrix."""
    file, _ = exported(tmp_path, layers=[16])
    stored = {each.name: onnx.numpy_helper.to_array(each).nbytes for each in onnx.load(file).graph.initializer}
    n_weights = N_ITEMS * 16 + N_ITEMS + 2 * 3 * 16 * 16 + 2 * 3 * 16
    n_ids = N_ITEMS
    assert sum(stored.values()) == 4 * n_weights + 8 * n_ids + sum(
        stored[name] for name in stored if name in ("zero", "one", "k") or name.startswith("sizes_")
    )


def test_a_model_in_float64_is_exported_in_float32(tmp_path: Path) -> None:
    file, model = exported(tmp_path, dtype="float64", layers=[7, 8])
    assert {each.type for each in opened(file).get_inputs()} == {"tensor(int64)", "tensor(float)"}
    outcome = verify(file, model, n_sessions=100)
    assert outcome.agrees
    assert outcome.same_lists > 400


def test_file_needs_nothing_but_onnx_runtime(tmp_path: Path) -> None:
    file, model = exported(tmp_path)
    program = f"""
import sys
import numpy as np
import onnxruntime as ort
graph = ort.InferenceSession({str(file)!r}, providers=["CPUExecutionProvider"])
print(graph.run(["item_ids"], {{"item_idx": np.array([4]), "state_0": np.zeros((1, 8), np.float32)}})[0][0].tolist())
assert not {{"gru4rec", "torch", "onnx"}} & sys.modules.keys()
"""
    printed = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    assert json.loads(printed) == Recommender.load(model).recommend([INTEGER_IDS[4]], 20).item_ids


def test_a_model_beyond_two_gib_is_refused() -> None:
    check_size(2**31 - 2**20)
    with pytest.raises(ConfigError, match=r"take 2\.0 GiB, and an ONNX file holds less than 2\. Export --pt2"):
        check_size(2**31)
