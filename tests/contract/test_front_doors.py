"""The programs as their users call them: flags, printed lines byte for byte, names that scripts import."""

from __future__ import annotations

import inspect
import json
import os
import pty
import re
import signal
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from conftest import official_models

from gru4rec.api import GRU4Rec
from gru4rec.cli.main import main as gru4rec_command
from gru4rec.cli.run import main as run_py

ROOT = Path(__file__).parent.parent.parent
SMALL = "layers=12,n_epochs=2,batch_size=16,n_sample=32,seed=3"
EPOCH_LINE = r"Epoch{} --> loss: \d+\.\d{{6}} \t\(\d+\.\d\ds\) \t\[\d+\.\d\d mb/s \| \d+ e/s\]"


@pytest.fixture(scope="module")
def logs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("logs")
    assert gru4rec_command(["simulate", str(folder), "--n_items", "200", "--n_sessions", "800", "-q"]) == 0
    return folder


@pytest.fixture(scope="module")
def model(logs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model") / "model.pt"
    assert run_py([str(logs / "train.tsv"), "-ps", SMALL, "-s", str(path), "-d", "cpu", "-q"]) == 0
    return path


def script(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments], cwd=ROOT, capture_output=True, text=True, check=False, timeout=120
    )


def test_run_py_prints_the_known_lines_and_nothing_else_on_stdout(logs: Path) -> None:
    done = script(
        "run.py", str(logs / "train.tsv"), "-t", str(logs / "test.tsv"), "-m", "1", "20", "-d", "cpu",
        "-ps", "layers=12,loss=bpr-max,learning_rate=0.1,constrained_embedding=True,elu_param=0,n_epochs=2",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[:6] == [
        "SET   layers                  TO   [12]      (type: <class 'list'>)",
        "SET   loss                    TO   bpr-max   (type: <class 'str'>)",
        "SET   learning_rate           TO   0.1       (type: <class 'float'>)",
        "SET   constrained_embedding   TO   True      (type: <class 'bool'>)",
        "SET   elu_param               TO   0.0       (type: <class 'float'>)",
        "SET   n_epochs                TO   2         (type: <class 'int'>)",
    ]
    patterns = [
        EPOCH_LINE.format(1),
        EPOCH_LINE.format(2),
        r"Total training time: \d+\.\d\ds",
        r"Recall@1: 0\.\d{6} MRR@1: 0\.\d{6}",
        r"Recall@20: 0\.\d{6} MRR@20: 0\.\d{6}",
    ]
    assert len(lines) == 6 + len(patterns)
    for line, pattern in zip(lines[6:], patterns, strict=True):
        assert re.fullmatch(pattern, line), line
    assert "training on cpu" in done.stderr
    assert "Traceback" not in done.stderr


def test_one_setting_prints_the_documented_set_line(logs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_py([str(logs / "train.tsv"), "-ps", "n_epochs=1", "-d", "cpu", "-q"]) == 0
    assert capsys.readouterr().out.splitlines()[0] == "SET   n_epochs   TO   1   (type: <class 'int'>)"


def test_loaded_model_prints_the_same_metrics_to_the_last_digit(
    logs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    test = ["-t", str(logs / "test.tsv"), "-m", "1", "5", "20", "-e", "conservative", "-d", "cpu"]
    path = str(tmp_path / "m.pt")
    assert run_py([str(logs / "train.tsv"), "-ps", SMALL, "-s", path, *test]) == 0
    trained = capsys.readouterr().out.splitlines()[-3:]
    assert run_py([path, "-l", *test]) == 0
    assert capsys.readouterr().out.splitlines() == trained
    assert all(line.startswith("Recall@") for line in trained)


@pytest.mark.parametrize("name", sorted(path.name for path in (ROOT / "paramfiles").glob("*.py")))
def test_parameter_files_train_as_written(name: str, logs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The whole file is read by -pf; the epochs are cut by training on few sessions."""
    head = logs / "head.tsv"
    head.write_text("\n".join((logs / "train.tsv").read_text().splitlines()[:120]) + "\n")
    assert run_py([str(head), "-pf", str(ROOT / "paramfiles" / name), "-d", "cpu", "-q"]) == 0
    out = capsys.readouterr().out
    assert "SET   n_sample" in out
    assert re.search(EPOCH_LINE.format(10), out)


def test_primary_metric_is_the_first_k_of_the_first_test_log(
    logs: Path, model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tests = [str(logs / "test.tsv"), str(logs / "train_valid.tsv")]
    for metric, place in (("recall", 1), ("mrr", 3)):
        assert run_py([str(model), "-l", "-t", *tests, "-m", "5", "20", "-d", "cpu", "-lpm", "-pm", metric]) == 0
        lines = capsys.readouterr().out.splitlines()
        assert len(lines) == 5
        value = re.fullmatch(r"PRIMARY METRIC: (0\.\d+)", lines[-1])
        assert value is not None
        assert f"{float(value[1]):.6f}" == lines[0].split()[place]


def test_every_tie_mode_is_offered(logs: Path, model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for mode in ("standard", "conservative", "median", "tiebreaking", "no_dedupe"):
        assert run_py([str(model), "-l", "-t", str(logs / "test.tsv"), "-e", mode, "-d", "cpu", "-q"]) == 0
        assert re.fullmatch(r"Recall@20: 0\.\d{6} MRR@20: 0\.\d{6}\n", capsys.readouterr().out)


def test_other_columns_are_read_by_name(logs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    expected = [str(logs / "train.tsv"), "-t", str(logs / "test.tsv"), "-ps", SMALL, "-d", "cpu", "-q"]
    assert run_py(expected) == 0
    wanted = capsys.readouterr().out.splitlines()[-1]
    paths = []
    for name in ("train", "test"):
        frame = pd.read_csv(logs / f"{name}.tsv", sep="\t").set_axis(["visit", "sku", "at"], axis=1)
        frame["price"] = 1.5
        frame[["at", "price", "sku", "visit"]].to_csv(tmp_path / f"{name}.csv", index=False)
        paths.append(str(tmp_path / f"{name}.csv"))
    keys = ["-sk", "visit", "-ik", "sku", "-tk", "at"]
    assert run_py([paths[0], "-t", paths[1], "-ps", SMALL, "-d", "cpu", "-q", *keys]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == wanted


def test_model_class_of_another_module_is_the_one_that_trains(logs: Path, tmp_path: Path) -> None:
    (tmp_path / "my_model.py").write_text(
        "import gru4rec_pytorch\n"
        "class GRU4Rec(gru4rec_pytorch.GRU4Rec):\n"
        "    def loss_fn_cross_entropy(self, scores, columns):\n"
        "        return super().loss_fn_cross_entropy(scores, columns) * 0 + self.settings.batch_size * 7.0\n"
    )
    done = subprocess.run(
        [sys.executable, "run.py", str(logs / "train.tsv"), "-ps", SMALL, "-g", "my_model", "-d", "cpu"],
        cwd=ROOT, env={**os.environ, "PYTHONPATH": str(tmp_path)}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "loss: 7.000000" in done.stdout


def test_interrupted_training_says_where_the_last_epoch_is(logs: Path, tmp_path: Path) -> None:
    path = tmp_path / "m.pt"
    settings = "layers=64,n_epochs=500,batch_size=16,n_sample=32,seed=3"
    command = [sys.executable, "run.py", str(logs / "train.tsv"), "-ps", settings, "-s", str(path), "-d", "cpu"]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    while "Epoch2" not in process.stdout.readline():
        assert process.poll() is None
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert re.search(r"the weights after epoch \d+ are in .*m\.pt\.checkpoint\ninterrupted\n$", err)
    assert GRU4Rec.loadmodel(f"{path}.checkpoint", device="cpu").status == "checkpoint"
    assert not path.exists()


def test_session_of_unknown_items_is_said_to_get_the_popular_ones(
    model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert gru4rec_command(["recommend", str(model), "abc", "-k", "2", "--json"]) == 0
    captured = capsys.readouterr()
    assert json.loads(captured.out)["popular"] is True
    assert "these are the popular items" in captured.err


def test_quiet_says_nothing_on_stderr(logs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_py([str(logs / "train.tsv"), "-ps", SMALL, "-t", str(logs / "test.tsv"), "-d", "cpu", "--quiet"]) == 0
    assert capsys.readouterr().err == ""


def test_dropped_events_are_reported(
    logs: Path, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = (logs / "test.tsv").read_text().splitlines()
    extra = [
        "777777\t-5\t1767225600",
        "777777\t-6\t1767225601",
        "777778\t-5\t1767225602",
        f"777778\t{lines[1].split()[1]}\t1767225603",
    ]
    (tmp_path / "test.tsv").write_text("\n".join([*lines, *extra]) + "\n")
    assert run_py([str(model), "-l", "-t", str(tmp_path / "test.tsv"), "-d", "cpu"]) == 0
    err = capsys.readouterr().err
    assert "3 events of 2 unknown items left out" in err
    assert "1 sessions left out with them" in err
    assert "1 sessions of one event give no prediction" in err


def test_progress_bar_is_shown_at_a_terminal_with_speed_and_time_left(logs: Path) -> None:
    """A real terminal: the program's standard error is a pseudo-terminal."""
    main_end, terminal = pty.openpty()
    command = [sys.executable, "run.py", str(logs / "train.tsv"), "-d", "cpu", "-ps", "layers=64,n_epochs=4"]
    process = subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=terminal, env={**os.environ, "TERM": "xterm"}
    )
    os.close(terminal)
    shown = b""
    while True:
        try:
            part = os.read(main_end, 65536)
        except OSError:  # the terminal is closed when the program ends
            break
        if not part:
            break
        shown += part
    out, _ = process.communicate(timeout=60)
    os.close(main_end)
    assert process.returncode == 0
    assert re.search(rb"training.*%.*e/s.*\d:\d\d", shown, flags=re.DOTALL)
    assert re.fullmatch(EPOCH_LINE.format(4), out.decode().splitlines()[-2])


def test_names_that_scripts_import() -> None:
    import evaluation
    import gru4rec_pytorch

    names = ["GRU4Rec", "GRU4RecModel", "IndexedAdagradM", "SampleStore", "SampleCache", "SessionDataIterator"]
    assert all(inspect.isclass(getattr(gru4rec_pytorch, name)) for name in names)
    assert gru4rec_pytorch.SampleCache is gru4rec_pytorch.SampleStore
    assert evaluation.evaluate_gpu is evaluation.batch_eval
    parameters = inspect.signature(evaluation.batch_eval).parameters
    assert list(parameters) == [
        "gru", "test_data", "cutoff", "batch_size", "mode", "item_key", "session_key", "time_key",
    ]  # fmt: skip
    defaults = {name: parameter.default for name, parameter in parameters.items()}
    assert list(defaults["cutoff"]) == [20]
    assert (defaults["batch_size"], defaults["mode"], defaults["item_key"]) == (512, "conservative", "ItemId")
    for path in ("run.py", "evaluation.py", "gru4rec_pytorch.py"):
        assert len((ROOT / path).read_text().splitlines()) < 40


def test_class_on_data_frames_as_scripts_use_it(logs: Path) -> None:
    import evaluation

    train, test = (
        pd.read_csv(logs / f"{name}.tsv", sep="\t").sample(frac=1, random_state=1) for name in ("train", "test")
    )
    train_before, test_before = train.copy(), test.copy()
    gru = GRU4Rec(layers=[12], n_epochs=1, batch_size=16, n_sample=32, device="cpu")
    gru.fit(train, item_key="ItemId", session_key="SessionId", time_key="Time")
    recall, mrr = evaluation.batch_eval(gru, test, cutoff=[1, 20])
    pd.testing.assert_frame_equal(train, train_before)
    pd.testing.assert_frame_equal(test, test_before)
    assert recall.keys() == mrr.keys() == {1, 20}
    assert 0 < mrr[20] < recall[20] < 1
    assert recall[1] == mrr[1]


def test_gru4rec_commands_work_together_in_json(logs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, test = str(tmp_path / "model.gru4rec"), str(logs / "test.tsv")
    flags = ["--layers", "12/10", "--n_epochs", "2", "--batch_size", "16", "--n_sample", "32", "--loss", "bpr-max"]
    assert (
        gru4rec_command(["train", str(logs / "train.tsv"), "-o", path, "-t", test, "--json", "-d", "cpu", *flags]) == 0
    )
    events = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [event["event"] for event in events] == ["settings", "epoch", "epoch", "trained", "metrics"]
    assert events[0]["layers"] == [12, 10]
    assert events[1]["epoch"] == 1
    assert gru4rec_command(["evaluate", path, test, "--json", "-d", "cpu"]) == 0
    evaluated = json.loads(capsys.readouterr().out)
    assert evaluated == events[-1]
    frame = pd.read_csv(test, sep="\t")
    clicks = frame.loc[frame.SessionId == frame.SessionId[0], "ItemId"].astype(str).tolist()
    assert gru4rec_command(["recommend", path, *clicks, "nonsense", "-k", "5", "--exclude-seen", "--json"]) == 0
    captured = capsys.readouterr()
    found = json.loads(captured.out)
    assert found["n_unknown"] == 1
    assert "1 of " in captured.err
    expected = GRU4Rec.loadmodel(path, device="cpu").recommend([int(c) for c in clicks], 5, exclude="seen")
    assert (found["item_ids"], found["scores"]) == (expected.item_ids, expected.scores)
    assert gru4rec_command(["recommend", path, *clicks, "-k", "2"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split("\t")[0] for line in lines] == [
        str(i) for i in GRU4Rec.loadmodel(path, device="cpu").recommend([int(c) for c in clicks], 2).item_ids
    ]


def test_flags_beside_a_parameter_file_come_first(logs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = str(ROOT / "paramfiles" / "rsc15_xe_shared_100_best.py")
    command = [
        "train",
        str(logs / "train.tsv"),
        "-pf",
        file,
        "--n_epochs",
        "1",
        "--layers",
        "8",
        "--json",
        "-d",
        "cpu",
        "-q",
    ]
    assert gru4rec_command(command) == 0
    settings = json.loads(capsys.readouterr().out.splitlines()[0])
    assert (settings["n_epochs"], settings["layers"], settings["momentum"]) == (1, [8], 0.2)


def test_diverged_run_exits_1_keeps_the_last_epoch_and_saves_no_model(
    logs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "m.pt"
    path.write_bytes(b"an older model")
    settings = "layers=12,n_epochs=6,batch_size=16,n_sample=32,learning_rate=1e18,loss=bpr-max,elu_param=0,seed=1"
    assert run_py([str(logs / "train.tsv"), "-ps", settings, "-s", str(path), "-d", "cpu", "-q"]) == 1
    captured = capsys.readouterr()
    assert re.search(r"^DivergedError: training diverged: the loss is (nan|inf) at epoch \d, step \d+\.", captured.err)
    assert path.read_bytes() == b"an older model"
    assert "Total training time" not in captured.out


def test_official_models_convert_and_recommend_the_recorded_list(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for file in sorted(official_models().glob("*.pt")):
        facts, path = json.loads(file.with_suffix(".json").read_text()), str(tmp_path / f"{file.stem}.gru4rec")
        assert run_py([str(file), "-l", "-d", "cpu"]) == 2
        assert f"gru4rec convert {file}" in capsys.readouterr().err
        assert gru4rec_command(["convert", str(file), path, "-q"]) == 0
        gru = GRU4Rec.loadmodel(path, device="cpu")
        found = gru.recommend(facts["session"], 10)
        assert [str(item_id) for item_id in found.item_ids] == facts["top10_item_ids"]
        assert found.scores == pytest.approx(facts["top10_scores"], abs=1e-5)
        assert gru.status == "converted"
        assert gru.recommend([], 3).scores[0] > 0, "training events came along"


def test_figures_on_the_training_log_are_named_as_such(logs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    train, test = str(logs / "train.tsv"), str(logs / "test.tsv")
    line = [train, "-ps", "layers=4,n_epochs=1,n_sample=8", "-d", "cpu", "-t", test]
    assert run_py(line) == 0
    assert "how well it remembers" not in capsys.readouterr().err
    assert run_py([*line, train]) == 0
    note = "train.tsv is what the model is trained on: figures on it say how well it remembers"
    assert capsys.readouterr().err.count(note) == 1
