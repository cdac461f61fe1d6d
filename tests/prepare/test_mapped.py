"""A part as sessions is what reading its file gives, bit by bit: ids, order, ties, times."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from gru4rec.cli.main import main
from gru4rec.data.events import load_events
from gru4rec.data.session_cache import cached_sessions
from gru4rec.data.sessions import Sessions
from gru4rec.prepare import mapped, write
from gru4rec.prepare.layout import RawLayout
from gru4rec.prepare.mapped import as_sessions
from gru4rec.prepare.raw import read_raw
from gru4rec.prepare.steps import sessions_of
from gru4rec.prepare.write import Ids, write_part

START = 1_599_955_200


def raw_log(kind: str, seed: int) -> pd.DataFrame:
    """Many sessions that start at the same times; ids whose order as text and as numbers differs."""
    rng = np.random.default_rng(seed)
    n = 3_000
    log = pd.DataFrame(
        {
            "who": rng.integers(1, 400, n),
            "item": rng.integers(1, 150, n),
            "when": START + rng.integers(0, 40, n) * 1_800,
        }
    )
    if kind == "text":
        log["who"] = log["who"].map("visitor {}".format)
        log["item"] = log["item"].map("Artikel-{}€".format)
    if kind == "fractions":
        stamps = pd.to_datetime(log["when"] * 1_000 + rng.integers(0, 2, n), unit="ms")
        log["when"] = stamps.dt.strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    if kind == "whole seconds":
        log["when"] = pd.to_datetime(log["when"], unit="s").dt.strftime("%Y-%m-%d %H:%M:%S UTC")
    if kind == "float":
        log["when"] = log["when"] + 0.25
    return log


@pytest.mark.parametrize("suffix", [".parquet", ".tsv"])
@pytest.mark.parametrize("gap", [None, 3_600])
@pytest.mark.parametrize("kind", ["integer", "text", "fractions", "whole seconds", "float"])
def test_sessions_of_a_part_are_those_of_its_file(
    kind: str, gap: float | None, suffix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mapped, "_BLOCK", 64)
    monkeypatch.setattr(write, "_ROWS_AT_ONCE", 100)
    raw_log(kind, seed=4).to_csv(tmp_path / "raw.csv", index=False)
    raw = read_raw([tmp_path / "raw.csv"], RawLayout(user_key="who", item_key="item", time_key="when"))
    ids = Ids.of(raw, sessions_are_cut=gap is not None)
    ticks = None if gap is None else raw.clock.ticks(gap, "gap")
    events = sessions_of(raw, gap=ticks)
    events = events.keep_events(events.item != events.item[5])  # codes that do not occur, and empty sessions gone
    path = tmp_path / f"part{suffix}"
    write_part(events, path, ids)
    wanted, found = Sessions.from_log(load_events(path)), as_sessions(events, ids, str(path))
    for name in ("item_idx", "offsets", "start_time"):
        assert getattr(found, name).dtype == getattr(wanted, name).dtype
        np.testing.assert_array_equal(getattr(found, name), getattr(wanted, name))
    assert found.items.item_ids.equals(wanted.items.item_ids)
    assert found.report() == wanted.report()


def test_prepare_fills_the_cache_that_training_opens(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    raw_log("text", seed=5).to_csv(tmp_path / "raw.csv", index=False)
    cache, out = str(tmp_path / "cache"), tmp_path / "out"
    keys = ["--user_key", "who", "--item_key", "item", "--time_key", "when", "--test_fraction", "0.2"]
    assert main(["prepare", str(tmp_path / "raw.csv"), "-o", str(out), "--cache", cache, "--quiet", *keys]) == 0
    for name in ("train_full", "train_tr"):
        argv = ["train", str(out / f"{name}.parquet"), "--n_epochs", "1", "--layers", "4"]
        assert main([*argv, "--cache", cache, "-o", str(tmp_path / "mapped.gru4rec")]) == 0
        assert "mapped from the cache" in capsys.readouterr().err
        assert main([*argv, "-o", str(tmp_path / "read.gru4rec")]) == 0
        assert "mapped from the cache" not in capsys.readouterr().err
        assert (tmp_path / "mapped.gru4rec").read_bytes() == (tmp_path / "read.gru4rec").read_bytes()


def test_a_cache_that_cannot_be_written_is_found_before_the_log_is_read(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "cache").write_text("")
    argv = ["prepare", str(tmp_path / "raw.csv"), "-o", str(tmp_path / "out"), "--cache", str(tmp_path / "cache")]
    (tmp_path / "raw.csv").write_text("no log at all")
    assert main(argv) == 2
    assert "cannot write to the cache " in capsys.readouterr().err


ODD = {
    "a session id that only the test has": ("who", "x"),
    "an item id that only the test has": ("item", "007"),
    "fractions of a second that only the test has": ("when", "2020-09-14T20:00:00.5Z"),
}


@pytest.mark.parametrize("suffix", [".parquet", ".tsv"])
@pytest.mark.parametrize("what", ODD)
def test_cache_holds_what_reading_gives_where_the_log_has_more_kinds(what: str, suffix: str, tmp_path: Path) -> None:
    column, odd = ODD[what]
    rows = [(n, (n * 7 + k) % 23, START + n // 9 * 3_600 + k) for n in range(300) for k in range(4)]
    log = pd.DataFrame(rows, columns=["who", "item", "when"]).astype(str)
    log["when"] = pd.to_datetime(log["when"].astype(int), unit="s").dt.strftime("%Y-%m-%dT%H:%M:%SZ")
    last = log[log["who"] == "299"].index
    if column == "when":
        log.loc[last, "when"] = odd
    else:
        log.loc[last if column == "who" else last[:3], column] = odd
    log.to_csv(tmp_path / "raw.csv", index=False)
    keys = ["--session_key", "who", "--item_key", "item", "--time_key", "when", "--test_fraction", "0.1"]
    keys += ["--min_item_support", "1", "--cold_items", "keep", *(["--tsv"] if suffix == ".tsv" else [])]
    cache, out = tmp_path / "cache", tmp_path / "out"
    assert main(["prepare", str(tmp_path / "raw.csv"), "-o", str(out), "--cache", str(cache), "--quiet", *keys]) == 0
    path = out / f"train_full{suffix}"
    told: list[str] = []
    found, wanted = cached_sessions(path, cache=cache, tell=told.append), Sessions.from_log(load_events(path))
    assert "mapped from the cache" in told[0]
    for name in ("item_idx", "offsets", "start_time"):
        assert getattr(found, name).dtype == getattr(wanted, name).dtype
        np.testing.assert_array_equal(getattr(found, name), getattr(wanted, name))
    assert found.items.item_ids.equals(wanted.items.item_ids)
