"""``gru4rec update`` as its users call it: files in, a model out; wrong input gets one message and harms nothing."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from doors import call
from update.literal import NEW, OLD

from gru4rec import GRU4Rec
from gru4rec.bundle import Bundle, load_bundle, save_bundle
from gru4rec.cli import main as door
from gru4rec.update.job import update
from gru4rec.update.settings import UpdateSettings

SETTINGS = ["--layers", 6, "--n_sample", 8, "--batch_size", 2, "--n_epochs", 2, "--momentum", 0.1, "--seed", 5]
QUIET = ["-d", "cpu", "-q"]


def frame(lists: list[list[Any]], *, first: int = 0) -> pd.DataFrame:
    rows = [(first + session, item) for session, events in enumerate(lists) for item in events]
    log = pd.DataFrame(rows, columns=["SessionId", "ItemId"])
    return log.assign(Time=np.arange(len(log)))


class Shop:
    """A folder with two logs, a model with its state and one without, and what else went through it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.old = self.log("old.tsv", OLD)
        self.new = self.log("new.tsv", NEW)
        self.model = folder / "model.gru4rec"
        self.plain = folder / "plain.gru4rec"
        self.out = folder / "updated.gru4rec"

    def log(self, name: str, lists: list[list[Any]]) -> Path:
        path, log = self.folder / name, frame(lists)
        if path.suffix == ".parquet":
            log.to_parquet(path)
        else:
            log.to_csv(path, sep="," if path.suffix == ".csv" else "\t", index=False)
        return path

    def snapshot(self) -> dict[str, bytes]:
        return {str(path): path.read_bytes() for path in sorted(self.folder.rglob("*")) if path.is_file()}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Shop:
    shop = Shop(tmp_path_factory.mktemp("shop"))
    for path, flags in ((shop.model, ["--keep-state"]), (shop.plain, [])):
        status, _, stderr = call(door.main, ["train", shop.old, "-o", path, *SETTINGS, *flags, *QUIET])
        assert (status, stderr) == (0, "")
    return shop


@pytest.fixture
def shop(made: Shop, tmp_path: Path) -> Shop:
    shop = Shop(tmp_path)
    shop.model.write_bytes(made.model.read_bytes())
    shop.plain.write_bytes(made.plain.read_bytes())
    return shop


def test_command_does_what_the_library_does_and_saved_is_loaded(shop: Shop) -> None:
    flags = ["--replay", shop.old, "--replay-share", 0.4, "--decay", 0.5, "--learning_rate", 0.02, "--n_epochs", 1]
    status, stdout, stderr = call(
        door.main, ["update", shop.model, shop.new, "-o", shop.out, *flags, "-t", shop.new, "-m", 3, "-d", "cpu"]
    )
    assert status == 0
    lines = stdout.splitlines()
    assert lines[:2] == [
        "SET   learning_rate   TO   0.02   (type: <class 'float'>)",
        "SET   n_epochs        TO   1      (type: <class 'int'>)",
    ]
    assert lines[2].startswith("Epoch1 --> loss: ")
    assert lines[3].startswith("Total training time: ")
    assert lines[4].startswith("Recall@3: ")
    assert "5 new sessions and 2 old ones; 3 new items beside 4, 2 of them beside no known one" in stderr
    assert f"saved {shop.out}" in stderr

    by_library = update(
        GRU4Rec.loadmodel(shop.model, device="cpu"), str(shop.new), replay=str(shop.old), n_epochs=1,
        settings=UpdateSettings(replay_share=0.4, decay=0.5), on_epoch=lambda report: None, learning_rate=0.02,
    ).gru.bundle()  # fmt: skip
    saved = load_bundle(shop.out)
    assert saved.settings == load_bundle(shop.model).settings
    assert saved.support.tolist() == by_library.support.tolist()
    assert saved.training_state is not None
    assert by_library.training_state is not None
    for name, array in {**by_library.weights, **by_library.training_state}.items():
        found = {**saved.weights, **saved.training_state}[name]
        np.testing.assert_array_equal(found, array, strict=True)


@pytest.mark.parametrize("name", ["new.csv", "new.parquet", "new.sessions"])
def test_other_kinds_of_logs_give_the_same_model(name: str, shop: Shop) -> None:
    from gru4rec.data.session_map import load_sessions, write_session_map

    if name.endswith(".sessions"):
        path = shop.folder / name
        write_session_map(load_sessions(shop.new), path)
    else:
        path = shop.log(name, NEW)
    for log, out in ((shop.new, shop.out), (path, shop.folder / "other.gru4rec")):
        assert call(door.main, ["update", shop.model, log, "-o", out, *QUIET])[0] == 0
    assert shop.out.read_bytes() == (shop.folder / "other.gru4rec").read_bytes()


def test_other_column_names_and_json(shop: Shop) -> None:
    names = {"SessionId": "visit", "ItemId": "sku", "Time": "at"}
    frame(NEW).rename(columns=names).to_csv(shop.folder / "named.tsv", sep="\t", index=False)
    columns = [
        "-sk",
        "visit",
        "-ik",
        "sku",
        "-tk",
        "at",
        "--json",
        "--threads",
        1,
        "-t",
        shop.folder / "named.tsv",
        "-m",
        2,
    ]
    status, stdout, _ = call(
        door.main, ["update", shop.model, shop.folder / "named.tsv", "-o", shop.out, *columns, *QUIET]
    )
    assert status == 0
    lines = [json.loads(line) for line in stdout.splitlines()]
    assert [line["event"] for line in lines] == ["settings", "epoch", "epoch", "trained", "updated", "metrics"]
    account = {name: value for name, value in lines[4].items() if name not in ("event", "seconds")}
    assert account == {
        "n_items_before": 4, "n_new_items": 3, "n_alone": 2, "n_sessions": 5, "n_replayed": 0, "state": "carried"
    }  # fmt: skip


def test_run_folder_gives_its_state_and_a_model_file_of_it_does_not(shop: Shop) -> None:
    run = shop.folder / "run"
    assert call(door.main, ["train", shop.old, "--run-dir", run, *SETTINGS, *QUIET])[0] == 0
    for source, out in ((run, "a"), (run / "model.gru4rec", "b"), (shop.model, "c")):
        status, _, stderr = call(door.main, ["update", source, shop.new, "-o", shop.folder / out, "-d", "cpu"])
        assert status == 0
        assert ("the optimiser's state was not saved" in stderr) == (out == "b")
    weights = [load_bundle(shop.folder / out).weights["Wy.weight"] for out in "abc"]
    np.testing.assert_array_equal(
        weights[0], weights[2]
    )  # the folder's checkpoint is the state that --keep-state keeps
    assert not np.array_equal(weights[0], weights[1])


def test_run_folder_of_a_best_epoch_says_that_its_state_is_of_another(shop: Shop) -> None:
    run = shop.folder / "run"
    flags = ["--validate", shop.new, "--n_epochs", 6, "--learning_rate", 0.5, "-m", 1]
    assert call(door.main, ["train", shop.old, "--run-dir", run, *SETTINGS, *flags, *QUIET])[0] == 0
    best = load_bundle(run / "model.gru4rec").n_epochs_done
    status, _, stderr = call(door.main, ["update", run, shop.new, "-o", shop.out, "-d", "cpu"])
    assert status == 0
    assert (f"the model is of epoch {best}, the state of the optimiser that of the run's end" in stderr) == (best < 6)
    assert best < 6


@dataclass(frozen=True)
class Wrong:
    """A wrong input: its command line, fragments of the message that it must get, and its exit status."""

    name: str
    argv: Callable[[Shop], list[Any]]
    fragments: tuple[str, ...]
    status: int = 2


def diverged(shop: Shop) -> Path:
    bundle = load_bundle(shop.model)
    path = shop.folder / "diverged.gru4rec"
    save_bundle(Bundle(bundle.settings, bundle.weights, bundle.items, bundle.support, "diverged", 1), path)
    return path


def baseline(shop: Shop) -> Path:
    path = shop.folder / "sknn.gru4rec"
    assert call(door.main, ["train", shop.old, "--model", "sknn", "-o", path, "-q"])[0] == 0
    return path


def hybrid(shop: Shop) -> Path:
    from gru4rec.baselines.files import hybrid_of, load, save
    from gru4rec.baselines.settings import HybridSettings

    path = shop.folder / "hybrid.gru4rec"
    save(hybrid_of(load(shop.plain), load(baseline(shop)), HybridSettings()), path)
    return path


def empty_folder(shop: Shop) -> Path:
    (shop.folder / "folder").mkdir()
    return shop.folder / "folder"


def link(shop: Shop, path: Path) -> Path:
    (shop.folder / "link").symlink_to(path)
    return shop.folder / "link"


def run_folder(shop: Shop, *settings: Any) -> Path:
    folder = shop.folder / "run"
    assert call(door.main, ["train", shop.old, "--run-dir", folder, *SETTINGS, *settings, *QUIET])[0] == 0
    return folder


def run_of_other_weights(shop: Shop) -> Path:
    folder = run_folder(shop, "--embedding", 3, "--constrained_embedding", False)
    (folder / "model.gru4rec").write_bytes(shop.plain.read_bytes())
    return folder


def session_map(shop: Shop) -> Path:
    from gru4rec.data.session_map import load_sessions, write_session_map

    write_session_map(load_sessions(shop.new), shop.folder / "new.sessions")
    return shop.folder / "new.sessions"


def first_file_of_map(shop: Shop) -> Path:
    return min((shop.folder / "new.sessions").iterdir())


WRONG = [
    Wrong(
        "no model", lambda s: [s.folder / "none", s.new, "-o", s.out], ("no model file", "none", "gru4rec train LOG -o")
    ),
    Wrong("a log as model", lambda s: [s.old, s.new, "-o", s.out], ("old.tsv is not a model file",)),
    Wrong("no run", lambda s: [empty_folder(s), s.new, "-o", s.out], ("no model.gru4rec in the folder", "--run-dir")),
    Wrong("baseline", lambda s: [baseline(s), s.new, "-o", s.out], ("kind 'sknn'", "only a GRU4Rec can be updated")),
    Wrong("hybrid", lambda s: [hybrid(s), s.new, "-o", s.out], ("holds a hybrid", "Update the GRU4Rec in it")),
    Wrong("diverged", lambda s: [diverged(s), s.new, "-o", s.out], ("diverged in training", "Train it again"), 1),
    Wrong("no log", lambda s: [s.model, s.folder / "none.tsv", "-o", s.out], ("none.tsv",)),
    Wrong(
        "other shop",
        lambda s: [s.model, s.log("other.tsv", [[70, 71], [72, 70]]), "-o", s.out],
        ("none of the 3 items of", "other.tsv", "is known to the model"),
    ),
    Wrong(
        "nothing to train on",
        lambda s: [s.model, s.log("short.tsv", [[0], [1]]), "-o", s.out],
        ("no session of", "short.tsv", "has two events"),
    ),
    Wrong(
        "text ids",
        lambda s: [s.model, s.log("text.tsv", [[0, "x"], [1, "y"]]), "-o", s.out],
        ("text.tsv has the item 'x'", "item ids are integers"),
    ),
    Wrong(
        "replays itself",
        lambda s: [s.model, s.new, "--replay", s.new, "-o", s.out],
        ("--replay", "is the new log itself"),
    ),
    Wrong(
        "share of nothing",
        lambda s: [s.model, s.new, "-o", s.out, "--replay-share", 1],
        ("--replay-share", "Add --replay"),
    ),
    Wrong(
        "choice of nothing",
        lambda s: [s.model, s.new, "-o", s.out, "--replay-choice", "recent"],
        ("--replay-choice", "Add --replay"),
    ),
    Wrong(
        "unknown choice",
        lambda s: [s.model, s.new, "-o", s.out, "--replay", s.old, "--replay-choice", "newest"],
        ("'newest' (--replay-choice)", "sample, recent"),
    ),
    Wrong(
        "negative share",
        lambda s: [s.model, s.new, "-o", s.out, "--replay", s.old, "--replay-share", -1],
        ("replay_share=-1", "Give 0 or more"),
    ),
    Wrong("decay", lambda s: [s.model, s.new, "-o", s.out, "--decay", 0], ("decay=0", "above 0, up to 1")),
    Wrong(
        "setting", lambda s: [s.model, s.new, "-o", s.out, "--learning_rate", "x"], ("learning_rate='x'", "the flags")
    ),
    Wrong("onto the model", lambda s: [s.model, s.new, "-o", s.model], ("would replace", "model.gru4rec")),
    Wrong("onto the log", lambda s: [s.model, s.new, "-o", s.new], ("would replace", "new.tsv", "Give -o another")),
    Wrong(
        "onto the log through a link", lambda s: [s.model, s.new, "-o", link(s, s.new)], ("would replace", "new.tsv")
    ),
    Wrong(
        "onto the run's checkpoint",
        lambda s: [run_folder(s), s.new, "-o", s.folder / "run" / "checkpoints" / "last.safetensors"],
        ("would replace", "last.safetensors", "Give -o another"),
    ),
    Wrong(
        "onto the run's model through a link",
        lambda s: [run_folder(s), s.new, "-o", link(s, s.folder / "run" / "model.gru4rec")],
        ("would replace", "model.gru4rec"),
    ),
    Wrong("into the session map", lambda s: [s.model, session_map(s), "-o", first_file_of_map(s)], ("would replace",)),
    Wrong(
        "run's checkpoint of other weights",
        lambda s: [run_of_other_weights(s), s.new, "-o", s.out],
        ("last.safetensors is the checkpoint of another model", "Give the model file alone"),
    ),
    Wrong(
        "a setting that decides the weights",
        lambda s: [s.model, s.new, "-o", s.out, "--layers", 32],
        ("layers in the flags cannot be changed by an update", "train anew"),
    ),
    Wrong(
        "folder missing", lambda s: [s.model, s.new, "-o", s.folder / "no" / "m"], ("cannot save", "Make the folder")
    ),
    Wrong("list too long", lambda s: [s.model, s.new, "-o", s.out, "-t", s.new, "-m", 8], ("k=8", "7 items")),
]


@pytest.mark.parametrize("wrong", WRONG, ids=lambda wrong: wrong.name)
def test_wrong_input_gets_one_message_and_harms_nothing(wrong: Wrong, shop: Shop) -> None:
    argv = wrong.argv(shop)
    before = shop.snapshot()
    status, stdout, stderr = call(door.main, ["update", *argv, *QUIET])
    assert status == wrong.status
    assert "Epoch" not in stdout
    assert len(stderr.splitlines()) == 1
    for fragment in wrong.fragments:
        assert fragment in stderr
    assert shop.snapshot() == before


def test_sessions_that_are_trained_on_twice_or_measured_after_training_are_warned_of(shop: Shop) -> None:
    frame(OLD + NEW).to_csv(shop.folder / "all.tsv", sep="\t", index=False)
    log = frame(OLD + NEW)
    log[log.SessionId >= len(OLD)].to_csv(shop.folder / "later.tsv", sep="\t", index=False)
    told = []
    for replay, test in ((shop.old, shop.old), (shop.folder / "all.tsv", shop.folder / "later.tsv")):
        argv = ["update", shop.model, shop.folder / "later.tsv", "-o", shop.out, "--replay", replay, "-t", test]
        status, _, stderr = call(door.main, [*argv, "-m", 2, "-d", "cpu"])
        assert status == 0
        told.append([line for line in stderr.splitlines() if line.startswith("warning:")])
    assert told[0] == []
    replayed, measured = told[1]
    assert "6 of 11 sessions of --replay" in replayed  # those of NEW
    assert "do not start before the first of" in replayed
    assert "later.tsv is the new log itself: figures are of sessions that were trained on" in measured


@pytest.mark.parametrize(
    ("flags", "fragment"),
    [
        (["--keep-state"], "--keep-state needs a model file to keep it in. Add -o MODEL"),
        (["--keep-state", "--run-dir", "run"], "--keep-state is not needed with --run-dir"),
        (["--keep-state", "--model", "pop", "-o", "m"], "--keep-state has no effect on a pop"),
    ],
)
def test_keep_state_without_effect_is_refused(flags: list[str], fragment: str, shop: Shop) -> None:
    status, _, stderr = call(door.main, ["train", shop.old, *flags, *QUIET])
    assert status == 2
    assert fragment in stderr
