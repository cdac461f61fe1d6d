"""``gru4rec reproduce`` from raw files to a report, on small logs; what is finished is not done again."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT
from prepare import raw_logs

from gru4rec.api import GRU4Rec, batch_eval
from gru4rec.cli.main import _parser, main
from gru4rec.data.sessions import Sessions
from gru4rec.evaluate.evaluator import Evaluation, Scorer, evaluate
from gru4rec.evaluate.ranks import RankCounts
from gru4rec.reproduce import job
from gru4rec.reproduce.published import PUBLISHED, PublishedRow

SMALL = {"layers": [8], "n_sample": 32, "batch_size": 16}
METRICS = [f"{name}@{k}" for k in (1, 5, 10, 20) for name in ("Recall", "MRR")]


def raw_of(dataset: str, folder: Path, seed: int = 1) -> Path:
    folder.mkdir()
    raw_logs.WRITERS[dataset](folder, seed)
    return folder


def reproduce(dataset: str, raw: Path, out: Path, *flags: str) -> int:
    return main(["reproduce", dataset, str(raw), "-o", str(out), "-d", "cpu", "--threads", "1", *flags])


def report_of(out: Path) -> dict[str, Any]:
    report: dict[str, Any] = json.loads((out / "reproduce.json").read_text())
    return report


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Publish small models, so that a run with the published settings takes a second."""
    for name, row in PUBLISHED.items():
        changed = PublishedRow(row.metrics, row.parameter_file, {**row.other_settings, **SMALL, "n_epochs": 2})
        monkeypatch.setitem(PUBLISHED, name, changed)


# --- the whole way ---


@pytest.mark.parametrize("dataset", ["diginetica", "retailrocket"])
def test_trial_on_a_made_up_log_measures_the_saved_model_and_compares_with_nothing(
    dataset: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    raw, out = raw_of(dataset, tmp_path / "raw"), tmp_path / "out"
    assert reproduce(dataset, raw, out, "--n_epochs", "1") == 1
    said = capsys.readouterr()
    assert said.out.splitlines()[-1] == (
        "not comparable: this is not the published protocol: n_epochs was 1 and not 10"
    )
    assert len(re.findall(r"^(?:Recall|MRR)@\d+ .*  not comparable$", said.out, flags=re.MULTILINE)) == 7
    assert said.err.count("Epoch") == 1
    assert sorted(path.name for path in out.iterdir()) == [
        "model.gru4rec", "model.json", "prepared", "prepared.json", "reproduce.json",
    ]  # fmt: skip
    gru = GRU4Rec.loadmodel(out / "model.gru4rec", device="cpu")
    assert gru.settings == PUBLISHED[dataset].settings(n_epochs=1)
    recall, mrr = batch_eval(gru, str(out / "prepared" / "test.parquet"), (1, 5, 10, 20), mode="standard")
    report = report_of(out)
    (run,) = report["runs"]
    assert list(run["metrics"]) == METRICS
    assert run["metrics"] == pytest.approx(
        {f"{name}@{k}": values[k] for name, values in (("Recall", recall), ("MRR", mrr)) for k in values}
    )
    assert report["verdict"] == "not comparable"
    assert {one["metric"]: one["here"] for one in report["metrics"]} == {
        name: value for name, value in run["metrics"].items() if name != "MRR@1"
    }


def test_trial_on_real_rows_goes_all_the_way(tmp_path: Path) -> None:
    raw = Path(os.environ.get("GRU4REC_DATA", ROOT.parent / "shared" / "data")) / "diginetica_raw_sample"
    if not (raw / "train-item-views.csv.gz").exists():
        pytest.skip(f"no {raw}/train-item-views.csv.gz: set GRU4REC_DATA to a folder with the real logs")
    assert reproduce("diginetica", raw, tmp_path / "out", "--n_epochs", "1", "-q") == 1
    report = report_of(tmp_path / "out")
    assert report["prepared"]["rows"] == 12_391
    assert report["runs"][0]["settings"]["layers"] == [512]
    popular = 20 / report["n_items"]  # what a list of 20 drawn at random would find
    assert 1.5 * popular < report["runs"][0]["metrics"]["Recall@20"] < 0.95


@pytest.mark.usefixtures("small")
def test_full_run_far_from_published_fails_with_each_metric_judged(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    raw, out = raw_of("diginetica", tmp_path / "raw"), tmp_path / "out"
    assert reproduce("diginetica", raw, out, "-q") == 1
    said = capsys.readouterr()
    assert said.err == ""
    assert re.search(r"^FAIL: \d of 7 metrics differ by more than 5%: ", said.out.splitlines()[-1])
    report = report_of(out)
    for one in report["metrics"]:
        relative = one["here"] / one["published"] - 1
        assert one["difference_frac"] == pytest.approx(relative)
        assert one["verdict"] == ("FAIL" if abs(relative) > 0.05 else "PASS (within 5%)")
        assert f"{one['published']:.4f}{one['here']:>10.4f}{'':>11}{relative:>+12.2%}  {one['verdict']}" in said.out


@pytest.mark.usefixtures("small")
def test_full_run_that_meets_what_was_published_passes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Publish what a first run finds, then that and 3% more, in one metric: the run passes, and then just passes."""
    raw, out = raw_of("retailrocket", tmp_path / "raw"), tmp_path / "out"
    reproduce("retailrocket", raw, out, "-q")
    found = {one["metric"]: one["here"] for one in report_of(out)["metrics"]}
    row = PUBLISHED["retailrocket"]
    monkeypatch.setitem(PUBLISHED, "retailrocket", PublishedRow(found, row.parameter_file, row.other_settings))
    assert reproduce("retailrocket", raw, out, "-q") == 0
    assert report_of(out)["verdict"] == "PASS"
    more = {**found, "MRR@10": found["MRR@10"] * 1.03}
    monkeypatch.setitem(PUBLISHED, "retailrocket", PublishedRow(more, row.parameter_file, row.other_settings))
    assert reproduce("retailrocket", raw, out, "-q") == 0
    assert report_of(out)["verdict"] == "PASS (within 5%)"


@pytest.mark.usefixtures("small")
def test_published_counts_are_shown_and_decide(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    raw, out = raw_of("rsc15", tmp_path / "raw"), tmp_path / "out"
    assert reproduce("rsc15", raw, out, "-q") == 1
    said = capsys.readouterr().out
    here = report_of(out)["prepared"]["windows"][0]["parts"]["train_full"]["events"]
    assert f"train_full events 31,637,239: here {here:,}\n" in said
    assert said.splitlines()[-1].startswith("FAIL: the prepared log is not the one that was published: ")


@pytest.mark.usefixtures("small")
def test_seeds_train_a_model_each_and_are_averaged(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    raw, out = raw_of("diginetica", tmp_path / "raw"), tmp_path / "out"
    assert reproduce("diginetica", raw, out, "--seeds", "1", "2", "--json", "-q") == 1
    report = json.loads(capsys.readouterr().out)
    assert report == report_of(out)
    assert [(run["seed"], Path(run["model"]).name) for run in report["runs"]] == [
        (1, "model.seed1.gru4rec"), (2, "model.seed2.gru4rec"),
    ]  # fmt: skip
    first, second = (run["metrics"] for run in report["runs"])
    assert first != second
    assert GRU4Rec.loadmodel(report["runs"][1]["model"], device="cpu").settings.seed == 2
    for one in report["metrics"]:
        a, b = first[one["metric"]], second[one["metric"]]
        assert one["here"] == pytest.approx((a + b) / 2)
        assert one["deviation"] == pytest.approx(abs(a - b) / 2**0.5)


@pytest.mark.parametrize(
    ("mode", "recall", "mrr"), [("standard", 1, 1), ("conservative", 0, 0.5), ("median", 0, 2 / 3)]
)
@pytest.mark.usefixtures("small")
def test_tie_mode_decides_the_ranks_and_whether_they_are_comparable(
    mode: str, recall: float, mrr: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each target has one item that scores the same, and none above: its rank is 1, 2 or between."""

    def tied(scorer: Scorer, sessions: Sessions, **options: Any) -> Evaluation:
        counts = evaluate(scorer, sessions, **options).counts
        zero = 0 * counts.n_higher
        return Evaluation(RankCounts(zero, zero + 2, zero), sessions)

    monkeypatch.setattr(job, "evaluate", tied)
    raw, out = raw_of("diginetica", tmp_path / "raw"), tmp_path / "out"
    assert reproduce("diginetica", raw, out, "-q", "-e", mode) == 1
    report = report_of(out)
    metrics = report["runs"][0]["metrics"]
    assert (metrics["Recall@1"], metrics["MRR@20"]) == pytest.approx((recall, mrr))
    if mode == "standard":
        assert report["departures"] == []
    else:
        assert report["departures"] == [f"the tie mode was {mode} and not standard"]
    assert report["verdict"] == ("FAIL" if mode == "standard" else "not comparable")


@pytest.mark.usefixtures("small")
def test_engine_precision_threads_and_versions_are_in_the_report(tmp_path: Path) -> None:
    raw, out = raw_of("diginetica", tmp_path / "raw"), tmp_path / "out"
    reproduce("diginetica", raw, out, "-q", "--engine", "fast", "--precision", "bf16", "--threads", "2")
    report = report_of(out)
    (run,) = report["runs"]
    assert (run["engine"], run["precision"], run["threads"], run["device"]) == ("fast", "bf16", 2, "cpu")
    rows = raw, tmp_path / "float32"
    reproduce("diginetica", *rows, "-q")
    exact = report_of(rows[1])["runs"][0]["losses"]
    assert run["losses"] == pytest.approx(exact, rel=0.05)
    assert run["losses"] != exact
    assert len(exact) == 2
    assert run["settings"] == json.loads((out / "model.json").read_text())["settings"]
    assert {"gru4rec", "python", "torch", "numpy", "polars", "platform"} <= report["versions"].keys()
    assert report["seconds"] >= run["evaluate_seconds"] >= 0


# --- a second call ---


@pytest.fixture
def done(tmp_path: Path, small: None) -> tuple[Path, Path]:
    """A raw folder, and the folder of a finished run on it."""
    raw, out = raw_of("diginetica", tmp_path / "raw"), tmp_path / "out"
    assert reproduce("diginetica", raw, out, "-q") == 1
    return raw, out


def stamps(out: Path) -> dict[str, int]:
    """When each file was written, but the report."""
    return {
        str(path.relative_to(out)): path.stat().st_mtime_ns
        for path in out.rglob("*")
        if path.is_file() and path.name != "reproduce.json"
    }


MODEL, PREPARED = {"model.gru4rec", "model.json"}, {
    "prepared.json", *(f"prepared/{name}" for name in ("stats.json", "summary.txt")),
    *(f"prepared/{name}.parquet" for name in ("train_full", "test", "train_tr", "train_valid")),
}  # fmt: skip


def written_again(done: tuple[Path, Path], *flags: str) -> set[str]:
    """Call it once more, and return what was written again; the numbers must stay."""
    raw, out = done
    before, numbers = stamps(out), report_of(out)["metrics"]
    reproduce("diginetica", raw, out, "-q", *flags)
    after = stamps(out)
    assert after.keys() - before.keys() <= MODEL | PREPARED
    assert [one["here"] for one in report_of(out)["metrics"]] == [one["here"] for one in numbers] or flags
    return {name for name in after if after[name] != before.get(name)}


def test_second_call_prepares_and_trains_nothing(done: tuple[Path, Path], capsys: pytest.CaptureFixture[str]) -> None:
    raw, out = done
    first = report_of(out)
    assert written_again(done) == set()
    second = report_of(out)
    assert [run["reused"] for run in first["runs"] + second["runs"]] == [False, True]
    told_anew = {"reused", "evaluate_seconds"}
    a, b = ({name: run[name] for name in run.keys() - told_anew} for run in first["runs"] + second["runs"])
    assert a == b
    capsys.readouterr()
    reproduce("diginetica", raw, out)
    said = capsys.readouterr().err
    assert f"prepared before: {out / 'prepared'}" in said
    assert f"trained before: {out / 'model.gru4rec'}" in said
    assert "Epoch" not in said


def test_second_call_measures_again_in_another_tie_mode(done: tuple[Path, Path]) -> None:
    assert written_again(done, "-e", "median") == set()
    assert report_of(done[1])["eval_type"] == "median"


def test_second_call_with_another_seed_trains_that_one_alone(done: tuple[Path, Path]) -> None:
    raw, out = done
    before = stamps(out)
    reproduce("diginetica", raw, out, "-q", "--seeds", "3")
    after = stamps(out)
    assert after.keys() - before.keys() == {"model.seed3.gru4rec", "model.seed3.json"}
    assert before.items() <= after.items()


@pytest.mark.parametrize(
    "flags", [["--n_epochs", "3"], ["--engine", "plain"], ["--precision", "bf16"]], ids=lambda flags: flags[0]
)
def test_second_call_with_other_training_trains_again(flags: list[str], done: tuple[Path, Path]) -> None:
    assert written_again(done, *flags) == MODEL


def test_second_call_of_another_version_does_all_again(
    done: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(job, "__version__", "0.0.1")
    assert written_again(done) == MODEL | PREPARED


@pytest.mark.parametrize("name", ["train_full.parquet", "test.parquet", "stats.json"])
@pytest.mark.parametrize("how", ["missing", "cut short"])
def test_prepared_folder_that_is_not_whole_is_made_again(name: str, how: str, done: tuple[Path, Path]) -> None:
    path = done[1] / "prepared" / name
    if how == "missing":
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[:-5])
    assert written_again(done) == PREPARED  # the same rows: the model stands


def test_prepared_folder_without_its_record_is_made_again(done: tuple[Path, Path]) -> None:
    (done[1] / "prepared.json").unlink()
    assert written_again(done) == PREPARED


@pytest.mark.parametrize("name", sorted(MODEL))
def test_model_that_is_not_whole_is_trained_again(name: str, done: tuple[Path, Path]) -> None:
    if name == "model.json":
        (done[1] / "model.gru4rec").unlink()
    path = done[1] / name
    path.write_bytes(path.read_bytes()[:-5])
    assert written_again(done) == MODEL


def test_changed_raw_file_changes_all(done: tuple[Path, Path]) -> None:
    raw, out = done
    path = raw / "train-item-views.csv"
    lines = path.read_text().splitlines()
    sessions = {line.split(";")[0] for line in lines[1:200]}
    path.write_text("\n".join(line for line in lines if line.split(";")[0] not in sessions) + "\n")
    before = report_of(out)
    reproduce("diginetica", raw, out, "-q")
    after = report_of(out)
    assert after["prepared"]["rows"] < before["prepared"]["rows"]
    assert after["runs"][0]["log"] != before["runs"][0]["log"]
    assert after["runs"][0]["reused"] is False


def test_raw_file_written_anew_with_the_same_rows_keeps_the_model(done: tuple[Path, Path]) -> None:
    path = done[0] / "train-item-views.csv"
    path.write_bytes(path.read_bytes())
    assert written_again(done) == PREPARED


def test_interrupted_training_leaves_what_was_finished(
    tmp_path: Path, small: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    raw, out = raw_of("diginetica", tmp_path / "raw"), tmp_path / "out"
    fit, calls = GRU4Rec.fit, []

    def interrupted(self: GRU4Rec, *given: Any, **options: Any) -> GRU4Rec:
        calls.append(self.settings.seed)
        if calls == [1, 2]:
            raise KeyboardInterrupt
        return fit(self, *given, **options)

    monkeypatch.setattr(GRU4Rec, "fit", interrupted)
    assert reproduce("diginetica", raw, out, "-q", "--seeds", "1", "2") == 130
    before = stamps(out)
    assert before.keys() == PREPARED | {"model.seed1.gru4rec", "model.seed1.json"}
    assert reproduce("diginetica", raw, out, "-q", "--seeds", "1", "2") == 1
    assert calls == [1, 2, 2]
    assert before.items() <= stamps(out).items()


def test_a_kill_between_record_and_model_trains_again(done: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """The record of the new model lies beside the old one, as the moment before the last move leaves it."""
    raw, out = done
    replace = Path.replace

    def killed(self: Path, target: Path) -> Path:
        if self.name == "model.part":
            raise KeyboardInterrupt
        return replace(self, target)

    with monkeypatch.context() as patched:
        patched.setattr(Path, "replace", killed)
        assert reproduce("diginetica", raw, out, "-q", "--n_epochs", "3") == 130
    assert json.loads((out / "model.json").read_text())["settings"]["n_epochs"] == 3
    reproduce("diginetica", raw, out, "-q", "--n_epochs", "3")
    assert GRU4Rec.loadmodel(out / "model.gru4rec", device="cpu").settings.n_epochs == 3
    assert not (out / "model.part").exists()


# --- docs ---


def test_every_command_of_the_page_is_one_and_every_log_has_its_own() -> None:
    page = (ROOT / "docs" / "reproduce.md").read_text()
    commands = re.findall(r"^gru4rec (reproduce .*)$", page, flags=re.MULTILINE)
    plans = [_parser().parse_args(shlex.split(command)) for command in commands]
    assert {plan.dataset for plan in plans} == PUBLISHED.keys()
    (commands_of,) = [action for action in _parser()._actions if getattr(action, "choices", None)]
    for action in commands_of.choices["reproduce"]._actions:  # type: ignore[index,call-overload,attr-defined]
        assert action.option_strings[:1] == ["-h"] or all(f"`{flag}" in page for flag in action.option_strings[-1:])


def test_report_fields_are_documented(done: tuple[Path, Path]) -> None:
    page = (ROOT / "docs" / "reproduce.md").read_text()
    report = report_of(done[1])
    assert {name for name in [*report, *report["runs"][0], *report["metrics"][0]] if f"`{name}`" not in page} == set()


def test_copy_of_the_folder_can_be_continued_elsewhere(done: tuple[Path, Path], tmp_path: Path) -> None:
    raw, out = done
    shutil.copytree(out, tmp_path / "moved")
    assert written_again((raw, tmp_path / "moved")) == set()
