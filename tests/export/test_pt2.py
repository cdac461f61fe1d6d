"""Files of torch.export keep their contract, and need nothing but torch."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from export.small_models import INTEGER_IDS, N_ITEMS, TEXT_IDS, save_model

from gru4rec.export.pt2_file import write_pt2
from gru4rec.export.step_graph import read_step_model
from gru4rec.export.verify import verify
from gru4rec.serve.recommender import Recommender


def exported(folder: Path, **model_options: Any) -> tuple[Path, Path]:
    """Write a model and its .pt2 file; return both."""
    model = save_model(folder / "m.gru4rec", **model_options)
    write_pt2(read_step_model(model, 20), folder / "m.pt2")
    return folder / "m.pt2", model


def test_a_row_without_a_click_keeps_its_state_and_its_list(tmp_path: Path) -> None:
    step = torch.export.load(exported(tmp_path)[0]).module()
    state, top_idx, scores = step(torch.tensor([4, 9]), [torch.zeros(2, 8)])
    next_state, next_idx, next_scores = step(torch.tensor([-1000, 5]), state)
    torch.testing.assert_close(next_state[0][0], state[0][0], rtol=0, atol=0)
    assert next_idx[0].tolist() == top_idx[0].tolist()
    assert next_scores[0].tolist() == scores[0].tolist()
    assert not torch.equal(next_state[0][1], state[0][1])


def test_an_item_beyond_the_catalogue_is_refused(tmp_path: Path) -> None:
    step = torch.export.load(exported(tmp_path)[0]).module()
    with pytest.raises(IndexError, match="out of range"):
        step(torch.tensor([N_ITEMS]), [torch.zeros(1, 8)])


def test_a_model_in_float64_is_exported_in_float32(tmp_path: Path) -> None:
    file, model = exported(tmp_path, dtype="float64", layers=[7, 8])
    assert {weight.dtype for weight in torch.export.load(file).state_dict.values()} == {torch.float32}
    assert verify(file, model, n_sessions=100).agrees


@pytest.mark.parametrize("ids", [INTEGER_IDS, TEXT_IDS], ids=["integers", "text"])
def test_file_needs_nothing_but_torch(ids: list[Any], tmp_path: Path) -> None:
    file, model = exported(tmp_path, ids=ids)
    program = f"""
import json, sys
import torch
texts = {{"gru4rec.item_ids": ""}}
step = torch.export.load({str(file)!r}, extra_files=texts).module()
ids = json.loads(texts["gru4rec.item_ids"])
_, top_idx, _ = step(torch.tensor([4]), [torch.zeros(1, 8)])
print(json.dumps([ids[item_idx] for item_idx in top_idx[0].tolist()]))
assert "gru4rec" not in sys.modules
"""
    printed = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    assert json.loads(printed) == Recommender.load(model).recommend([ids[4]], 20).item_ids
