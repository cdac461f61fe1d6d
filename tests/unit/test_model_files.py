"""Baselines and hybrids in model files: what comes back is what was saved, and nothing else is let in."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import make_sessions
from safetensors import safe_open
from safetensors.numpy import save_file

from gru4rec import GRU4Rec, Recommender
from gru4rec.baselines.files import Fitted, fitted_gru, hybrid_of, load, save
from gru4rec.baselines.kinds import KINDS, baseline_settings, fit_baseline
from gru4rec.baselines.settings import HybridSettings
from gru4rec.bundle import write_model_file
from gru4rec.cli import main as door
from gru4rec.data.sessions import Sessions
from gru4rec.errors import ConfigError, ModelFileError
from gru4rec.evaluate.evaluator import evaluate

LISTS = [[0, 1, 2], [1, 2, 3, 1], [4, 2, 0], [3, 4], [0, 1, 3], [2, 3, 4, 0], [1, 4]]


@pytest.fixture
def sessions() -> Sessions:
    return make_sessions(LISTS, 5)


def fitted(kind: str, sessions: Sessions) -> Fitted:
    settings = baseline_settings(kind, {})
    return Fitted(kind, fit_baseline(kind, sessions, settings), sessions.items, sessions.support(), settings)


def hybrid(sessions: Sessions) -> Fitted:
    gru = GRU4Rec(layers=[4], n_epochs=1, n_sample=4, batch_size=2, device="cpu").fit(sessions, on_epoch=lambda _: None)
    blend = HybridSettings(neighbour_share=0.4, temperature=0.7, repeat_factors=(0.5, 2.0), n_clicks=3)
    return hybrid_of(fitted_gru(gru.bundle()), fitted("vsknn", sessions), blend)


@pytest.mark.parametrize("kind", [*KINDS, "hybrid"])
def test_loaded_model_ranks_and_lists_as_the_saved_one(kind: str, sessions: Sessions, tmp_path: Path) -> None:
    saved = hybrid(sessions) if kind == "hybrid" else fitted(kind, sessions)
    save(saved, tmp_path / "m.gru4rec")
    loaded = load(tmp_path / "m.gru4rec")
    assert loaded.kind == kind
    assert loaded.settings == saved.settings
    assert loaded.n_bytes == saved.n_bytes
    both = [evaluate(model.scorer, sessions, list_length=5) for model in (saved, loaded)]
    assert both[0].counts.n_higher.tolist() == both[1].counts.n_higher.tolist()
    assert both[0].lists_TK.tolist() == both[1].lists_TK.tolist()  # type: ignore[union-attr]


@pytest.mark.parametrize("kind", [*KINDS, "hybrid"])
def test_recommender_serves_what_the_evaluation_ranked(kind: str, sessions: Sessions, tmp_path: Path) -> None:
    model = hybrid(sessions) if kind == "hybrid" else fitted(kind, sessions)
    save(model, tmp_path / "m.gru4rec")
    recommender = Recommender.load(tmp_path / "m.gru4rec")
    evaluation = evaluate(model.scorer, sessions, list_length=5)
    assert evaluation.lists_TK is not None
    first = evaluation.lists_TK[1]  # after the clicks 0 and 1 of the first session
    assert recommender.recommend([0, 1], 5).item_ids == first.tolist()
    live = recommender.session()
    live.update(0)
    live.update(1)
    assert live.recommend(5).item_ids == first.tolist()
    assert recommender.recommend([0, 1], 5, exclude="seen").item_ids == [item for item in first.tolist() if item > 1]


def test_gru4rec_refuses_the_file_of_a_baseline(sessions: Sessions, tmp_path: Path) -> None:
    save(fitted("vsknn", sessions), tmp_path / "m.gru4rec")
    with pytest.raises(ModelFileError, match=r"holds a model of the kind .vsknn., not a GRU4Rec"):
        GRU4Rec.loadmodel(tmp_path / "m.gru4rec")


def test_hybrid_of_two_baselines_is_refused(sessions: Sessions) -> None:
    settings = HybridSettings.model_validate({})
    with pytest.raises(ConfigError, match="blends a gru4rec with a session kNN, not pop with vsknn"):
        hybrid_of(fitted("pop", sessions), fitted("vsknn", sessions), settings)


def test_hybrid_of_different_catalogues_is_refused(sessions: Sessions) -> None:
    other = fitted("vsknn", make_sessions(LISTS, 6))
    mixed = hybrid(sessions)
    assert mixed.bundle is not None
    with pytest.raises(ConfigError, match="different items"):
        hybrid_of(fitted_gru(mixed.bundle), other, HybridSettings.model_validate({}))


def arrays_of(path: Path) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    with safe_open(path, framework="numpy") as file:
        return {name: file.get_tensor(name) for name in file.keys()}, json.loads(file.metadata()["gru4rec"])  # noqa: SIM118


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("item_idx", lambda array: array + 5),
        ("item_idx", lambda array: array - 3),
        ("posted", lambda array: array + 100),
        ("posting_offsets", lambda array: array[::-1]),
        ("posting_offsets", lambda array: array[:-1]),
        ("offsets", lambda array: array * 2),
        ("age", lambda array: array * np.nan),
    ],
)
def test_index_that_points_nowhere_is_refused(name: str, change: Any, sessions: Sessions, tmp_path: Path) -> None:
    """Right checksums, wrong contents: a file made to make compiled loops read beyond their arrays."""
    model = fitted("vsknn", sessions)
    save(model, tmp_path / "m.gru4rec")
    arrays, content = arrays_of(tmp_path / "m.gru4rec")
    index = {key: arrays[key] for key in ("item_idx", "offsets", "age", "posting_offsets", "posted")}
    index[name] = np.ascontiguousarray(change(index[name])).astype(index[name].dtype)
    said = {"kind": "vsknn", "settings": content["settings"]}
    write_model_file(tmp_path / "bad.gru4rec", said, index, sessions.items, sessions.support(), format_version=2)
    with pytest.raises(ModelFileError, match="damaged"):
        load(tmp_path / "bad.gru4rec")


def test_flipped_byte_and_unknown_kind_are_refused(sessions: Sessions, tmp_path: Path) -> None:
    save(fitted("markov", sessions), tmp_path / "m.gru4rec")
    arrays, content = arrays_of(tmp_path / "m.gru4rec")
    arrays["score"] = arrays["score"] + 1
    save_file(arrays, tmp_path / "flipped.gru4rec", metadata={"gru4rec": json.dumps(content)})
    with pytest.raises(ModelFileError, match="checksum of 'score'"):
        load(tmp_path / "flipped.gru4rec")
    write_model_file(
        tmp_path / "new.gru4rec", {"kind": "oracle", "settings": {}}, {}, sessions.items, sessions.support()
    )
    with pytest.raises(ModelFileError, match="unknown kind 'oracle'"):
        load(tmp_path / "new.gru4rec")


def test_train_evaluate_and_recommend_take_baselines(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = "".join(
        f"{place}\t{item}\t{place * 10 + at}\n" for place, row in enumerate(LISTS) for at, item in enumerate(row)
    )
    log, model = tmp_path / "log.tsv", tmp_path / "m.gru4rec"
    log.write_text("SessionId\tItemId\tTime\n" + rows)
    assert (
        door.main(["train", str(log), "--model", "vsknn", "-ps", "k=3", "-o", str(model), "-t", str(log), "-m", "2"])
        == 0
    )
    trained = capsys.readouterr().out
    assert "SET   k   TO   3   (type: <class 'int'>)" in trained
    assert door.main(["evaluate", str(model), str(log), "-m", "2", "--intervals", "--events", str(tmp_path / "e")]) == 0
    printed = capsys.readouterr().out
    assert printed.splitlines()[0] == trained.splitlines()[-1]
    assert printed.splitlines()[1].startswith("95% intervals: Recall@2 ")
    assert (tmp_path / "e" / "log.parquet").is_file()
    assert door.main(["recommend", str(model), "0", "1", "-k", "3"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 3


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--model", "vsknnn"], "unknown baseline 'vsknnn'. Choose from"),
        (["--model", "vsknn", "-ps", "neighbors=3"], "unknown setting 'neighbors' in -ps of vsknn"),
        (["--model", "vsknn", "-ps", "k=many"], "k='many' in -ps of vsknn does not fit"),
        (["--model", "vsknn", "--layers", "3"], "--layers has no effect on a vsknn"),
        (["-ps", "k=3"], "-ps is for baselines here"),
        (["--model", "pop", "--engine", "plain"], "--engine has no effect on a pop"),
        (["--model", "pop", "--precision", "bf16"], "--precision has no effect on a pop"),
        (["--model", "pop", "--tables", "host"], "--tables has no effect on a pop"),
        (["--model", "pop", "-ss", "7"], "--sample_store_size has no effect on a pop"),
        (["--model", "pop", "-d", "cuda"], "--device cuda: a pop computes on the CPU"),
    ],
)
def test_wrong_baseline_flags_are_refused(
    flags: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "log.tsv").write_text("SessionId\tItemId\tTime\n1\t1\t1\n1\t2\t2\n")
    assert door.main(["train", str(tmp_path / "log.tsv"), *flags]) == 2
    assert message in capsys.readouterr().err


def test_help_of_train_names_every_baseline(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        door.main(["train", "--help"])
    words = capsys.readouterr().out.replace(",", " ").replace(".", " ").split()
    assert KINDS.keys() <= set(words)


def test_events_of_two_logs_are_never_one_file(
    sessions: Sessions, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save(fitted("pop", sessions), tmp_path / "m.gru4rec")
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "test.tsv").write_text("SessionId\tItemId\tTime\n1\t1\t1\n1\t2\t2\n")
    logs = [str(tmp_path / folder / "test.tsv") for folder in ("a", "b")]
    assert door.main(["evaluate", str(tmp_path / "m.gru4rec"), *logs, "-m", "2", "--events", str(tmp_path / "e")]) == 2
    assert "events of 'test' and 'test' would be one file, test.parquet" in capsys.readouterr().err
    assert not (tmp_path / "e").exists()
