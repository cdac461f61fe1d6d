"""What all tests share: one thread, small logs, and where real logs and recorded runs are."""

from __future__ import annotations

import gc
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import settings

from gru4rec.data.events import load_events
from gru4rec.data.sessions import Sessions

ROOT = Path(__file__).parent.parent
GOLDEN = ROOT / "tests" / "parity" / "golden"

settings.register_profile("gru4rec", deadline=None, max_examples=40, print_blob=True)
settings.load_profile("gru4rec")
torch.set_num_threads(1)


def real_log(name: str) -> Path:
    """Return the folder of a real log, or skip the test where it is not on this machine."""
    folder = Path(os.environ.get("GRU4REC_DATA", ROOT.parent / "shared" / "data")) / name
    if not (folder / "train.tsv.gz").exists():
        pytest.skip(f"no {folder}/train.tsv.gz: set GRU4REC_DATA to a folder with the real logs")
    return folder


def official_models() -> Path:
    """Return the folder of models saved by the official program, or skip the test where there is none."""
    folder = Path(os.environ.get("GRU4REC_OFFICIAL_MODELS", ROOT.parent / "shared" / "golden" / "official_models"))
    if not list(folder.glob("*.pt")):
        pytest.skip(f"no models of the official program in {folder}: set GRU4REC_OFFICIAL_MODELS")
    return folder


@pytest.fixture(scope="session")
def golden_train() -> Sessions:
    """The recorded runs' training sessions."""
    return Sessions.from_log(load_events(GOLDEN / "train.tsv"))


@pytest.fixture(scope="session")
def golden_test(golden_train: Sessions) -> Sessions:
    """The recorded runs' test sessions, in the training vocabulary."""
    return Sessions.from_log(load_events(GOLDEN / "test.tsv"), golden_train.items)


def make_sessions(lists: list[list[int]], n_items: int | None = None) -> Sessions:
    """Build sessions directly from lists of item indices; start times rise."""
    from gru4rec.data.vocabulary import Vocabulary

    flat = np.array([item for events in lists for item in events], dtype=np.int32)
    offsets = np.cumsum([0, *map(len, lists)])
    items = Vocabulary(np.arange(n_items if n_items is not None else flat.max() + 1))
    return Sessions(flat, offsets, np.arange(len(lists)), items, "made-up sessions")


def pytest_collection_finish() -> None:
    """Leave modules and tests out of garbage collections, which programs under test ask for again and again."""
    gc.collect()
    gc.freeze()
