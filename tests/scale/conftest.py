"""The models that tests of lists in bulk share."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from conftest import make_sessions
from scale.bulk_runs import N_ITEMS, vocabulary_of

from gru4rec.api import GRU4Rec
from gru4rec.baselines.files import Fitted, save
from gru4rec.baselines.kinds import baseline_settings, fit_baseline
from gru4rec.data.sessions import Sessions


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A GRU4Rec and a session kNN of the same shop, and a GRU4Rec whose ids are text."""
    folder = tmp_path_factory.mktemp("models")
    rng = np.random.default_rng(0)
    train = make_sessions([rng.integers(0, N_ITEMS, 5).tolist() for _ in range(200)], N_ITEMS)
    numbers = Sessions(train.item_idx, train.offsets, train.start_time, vocabulary_of("{}"), "train")
    texts = Sessions(train.item_idx, train.offsets, train.start_time, vocabulary_of("item {}"), "train")
    paths = {name: folder / name for name in ("gru", "knn", "text")}
    for name, sessions in (("gru", numbers), ("text", texts)):
        gru = GRU4Rec(device="cpu", layers=[8], n_epochs=1, batch_size=8, n_sample=8, seed=1).fit(sessions)
        gru.savemodel(paths[name])
    settings = baseline_settings("vmisknn", {})
    scorer = fit_baseline("vmisknn", numbers, settings)
    save(Fitted("vmisknn", scorer, numbers.items, numbers.support(), settings), paths["knn"])
    return paths
