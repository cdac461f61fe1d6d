"""Files of torch.export say what their models say: every input mode, cell and number of layers."""

from __future__ import annotations

from pathlib import Path

import pytest
from export.small_models import CELLS, LAYERS, MODES, save_model

from gru4rec.export.pt2_file import write_pt2
from gru4rec.export.step_graph import read_step_model
from gru4rec.export.verify import verify


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("layers", LAYERS, ids=len)
@pytest.mark.parametrize("mode", MODES)
def test_file_agrees_with_its_model(mode: str, layers: list[int], cell: str, tmp_path: Path) -> None:
    model = save_model(tmp_path / "m.gru4rec", layers=layers, gru_variant=cell, **MODES[mode])
    write_pt2(read_step_model(model, 20), tmp_path / "m.pt2")
    outcome = verify(tmp_path / "m.pt2", model)
    assert (outcome.sessions, outcome.other_lists, outcome.agrees) == (1000, 0, True)
    assert outcome.same_lists + outcome.tied_lists == outcome.clicks > 4000
    assert 0 < outcome.score_difference < 1e-4
