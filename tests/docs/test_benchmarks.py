"""The benchmarks run, say all they promise, and draw their figures; nothing here looks at how fast anything is."""

from __future__ import annotations

import importlib.util
import json
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parent.parent.parent
BENCHMARKS = ROOT / "benchmarks"
PARTS = ["steps", "evaluation", "growth", "memory", "sampler"]


def run(script: str, *arguments: str) -> str:
    command = [sys.executable, str(BENCHMARKS / script), *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that a quick run of all parts wrote to."""
    folder = tmp_path_factory.mktemp("results")
    output = run("bench.py", "--quick", "--threads", "1", "--out", str(folder))
    assert "Training step" in output
    assert "load average at the start" in output
    return folder


def read(folder: Path) -> dict[str, Any]:
    (path,) = folder.glob("*.json")
    found: dict[str, Any] = json.loads(path.read_text())
    return found


def test_quick_run_writes_json_and_markdown_of_all_parts(results: Path) -> None:
    found = read(results)
    assert list(found["parts"]) == PARTS
    assert found["machine"]["threads"] == [1]
    (markdown,) = results.glob("*.md")
    assert re.fullmatch(r"[a-z0-9-]+_\d{4}-\d\d-\d\d_quick", markdown.stem)
    for name, part in found["parts"].items():
        assert part["rows"], name
        assert part["title"] in markdown.read_text()
        assert len(part["load_average"]) == 3


def test_ratios_are_those_of_the_times(results: Path) -> None:
    """With one round the median of ratios is the ratio of medians."""
    for row in read(results)["parts"]["steps"]["rows"]:
        n_lanes, n_hidden = row["n_lanes"], row["n_hidden"]
        flop = 30 * n_lanes * n_hidden**2 + 6 * n_lanes * n_hidden * (n_lanes + row["n_sample"])
        assert row["fast_x_plain"] == pytest.approx(row["plain_ms"] / row["fast_ms"])
        assert row["fast_events_per_s"] == pytest.approx(1000 * n_lanes / row["fast_ms"])
        rates = [flop * row[f"{engine}_x_matrix"] / row[f"{engine}_ms"] for engine in ("plain", "fast", "bf16")]
        assert min(rates) <= flop / row["matrix_ms"] * 1.001
        assert max(rates) >= flop / row["matrix_ms"] * 0.999


def test_growth_has_both_losses_and_what_figures_need(results: Path) -> None:
    rows = read(results)["parts"]["growth"]["rows"]
    for loss in ("cross-entropy", "bpr-max"):
        grown = {row["grows"] for row in rows if row["loss"] == loss}
        assert grown >= {"n_lanes", "n_hidden", "n_sample", "n_items"}
    assert [row["schedule_ms"] > 0 for row in rows if row["grows"] == "n_events"] == [True, True]


def test_another_call_of_the_day_keeps_the_other_parts(results: Path) -> None:
    before = read(results)["parts"]
    run("bench.py", "--quick", "--threads", "1", "--out", str(results), "--parts", "sampler")
    after = read(results)["parts"]
    assert list(after) == PARTS
    assert after["steps"] == before["steps"]
    assert after["sampler"] != before["sampler"]


@pytest.mark.skipif(importlib.util.find_spec("matplotlib") is None, reason="figures need the extra: gru4rec[bench]")
def test_figures_are_drawn_from_results(results: Path, tmp_path: Path) -> None:
    (path,) = results.glob("*.json")
    run("figures.py", str(path), "--out", str(tmp_path))
    names = ["engines.png", "training_speed_bpr-max.png", "training_speed_cross-entropy.png"]
    assert sorted(figure.name for figure in tmp_path.iterdir()) == names
    assert all(figure.read_bytes().startswith(b"\x89PNG") for figure in tmp_path.iterdir())


@pytest.mark.parametrize("engine", ["fast", "plain", "bf16"])
def test_profile_accounts_for_the_whole_step(engine: str) -> None:
    output = run("profile_step.py", "--quick", "--engine", engine, "--dropout", "0.2")
    rows = re.findall(r"^│ (\S.*?) +│ +(-?[\d.]+) │ +(-?[\d.]+) │", output, flags=re.MULTILINE)
    shares = {name: float(share) for name, _ms, share in rows}
    assert shares.pop("total") == 100
    assert sum(shares.values()) == pytest.approx(100, abs=1)
    expected = {"batch making", "sampling", "gather", "dropout", "row update", "dense update", "rest"}
    expected |= {"forward", "loss", "backward"} if engine == "plain" else {"GRU products", "gates", "score product"}
    assert shares.keys() >= expected
    assert all(share > 0 for name, share in shares.items() if name in expected - {"sampling"})
    assert "Timers: " in output


def test_stopwatch_counts_a_part_inside_another_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Outer runs from 0 to 10 s, inner within it from 2 to 5 and from 6 to 7: 6 s and 4 s."""
    monkeypatch.syspath_prepend(ROOT)
    from benchmarks.profile_step import Stopwatch

    watch = Stopwatch()
    inner = watch.wrap(lambda: None, "inner")
    outer = watch.wrap(lambda: (inner(), inner()), "outer")
    monkeypatch.setattr(time, "perf_counter", iter([0.0, 2.0, 5.0, 6.0, 7.0, 10.0]).__next__)
    outer()
    monkeypatch.undo()
    assert watch.seconds == {"outer": 6.0, "inner": 4.0}
    assert watch.n_calls == 3


def test_no_script_hides_a_module_of_the_standard_library() -> None:
    assert not {path.stem for path in BENCHMARKS.glob("*.py")} & sys.stdlib_module_names


def test_prepare_times_compares_with_pandas_and_starts_to_train(tmp_path: Path) -> None:
    """The comparison of what both wrote is part of the script: it ends with an error where a row differs."""
    output = run("prepare_times.py", "--events", "60000", "--runs", "1", "--out", str(tmp_path))
    assert "Preparing a raw log" in output
    found = read(tmp_path)
    assert [row["ids"] for row in found["rows"]] == ["integers", "texts"]
    for row in found["rows"]:
        assert row["x_pandas"] == pytest.approx(row["pandas_s"] / row["seconds"])
        assert row["events_per_s"] == pytest.approx(60_000 / row["seconds"])
        assert 0 < row["peak_gb"] < 4
        assert row["first_step_s"] > row["open_s"] > 0
    (markdown,) = tmp_path.glob("*.md")
    assert "`python benchmarks/prepare_times.py --events 60000 --runs 1`" in markdown.read_text()
