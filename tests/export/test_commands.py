"""``gru4rec export`` and ``verify-export``: what they write, what they find wrong, what they refuse and how."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import doors
import numpy as np
import onnx
import pytest
import torch
from conftest import make_sessions
from export.small_models import N_ITEMS, save_model

from gru4rec.baselines.files import Fitted, fitted_gru, hybrid_of, save
from gru4rec.baselines.kinds import baseline_settings, fit_baseline
from gru4rec.baselines.settings import HybridSettings
from gru4rec.bundle import load_bundle
from gru4rec.cli.main import main


def call(*argv: Any) -> tuple[Any, str, str]:
    return doors.call(main, argv)


def outside(*argv: Any, before: str = "") -> subprocess.CompletedProcess[str]:
    """Run the command in a process of its own, after a line of Python."""
    words = [str(word) for word in argv]
    program = f"import sys; {before}\nfrom gru4rec.cli.main import main\nsys.exit(main({words}))"
    return subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return save_model(tmp_path / "m.gru4rec")


@pytest.fixture
def file(model: Path, tmp_path: Path) -> Path:
    """An ONNX file of the model."""
    assert call("export", model, "--onnx", tmp_path / "m.onnx")[0] == 0
    return tmp_path / "m.onnx"


def recorded(path: Path) -> dict[str, Any]:
    """Read the outcome that a file carries, without gru4rec."""
    if path.suffix == ".pt2":
        texts = {"gru4rec.verified": b""}
        torch.export.load(path, extra_files=texts)
        found: dict[str, Any] = json.loads(texts["gru4rec.verified"])
        return found
    return dict(json.loads({each.key: each.value for each in onnx.load(path).metadata_props}["gru4rec.verified"]))


def change(path: Path, name: str, by: Callable[[np.ndarray], np.ndarray]) -> None:
    """Change a weight in an ONNX file."""
    proto = onnx.load(path)
    (weight,) = [each for each in proto.graph.initializer if each.name == name]
    weight.CopyFrom(onnx.numpy_helper.from_array(by(onnx.numpy_helper.to_array(weight).copy()), name))
    onnx.save(proto, path)


def test_both_files_are_written_checked_and_carry_the_outcome(model: Path, tmp_path: Path) -> None:
    files = [tmp_path / "m.onnx", tmp_path / "m.pt2"]
    status, stdout, stderr = call("export", model, "--onnx", files[0], "--pt2", files[1], "-k", 7, "--json")
    said = json.loads(stdout)
    assert (status, said["k"], said["n_items"], said["files"]) == (0, 7, N_ITEMS, [str(file) for file in files])
    assert [line.split(".")[0] for line in stderr.splitlines()] == [f"wrote {tmp_path}/m", f"wrote {tmp_path}/m"]
    for file in files:
        status, stdout, stderr = call("verify-export", file, model, "--sessions", 30, "--seed", 3, "--json")
        outcome = json.loads(stdout)
        assert (status, stderr, outcome["agrees"], outcome["sessions"], outcome["seed"]) == (0, "", True, 30, 3)
        assert recorded(file) == outcome
        assert call("verify-export", file, model, "--sessions", 30, "--seed", 3, "--json") == (status, stdout, stderr)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["m.gru4rec", "m.onnx", "m.pt2"]


def test_the_summary_says_what_was_compared(file: Path, model: Path) -> None:
    status, stdout, _ = call("verify-export", file, model, "--sessions", 30)
    clicks = recorded(file)["clicks"]
    assert status == 0
    assert f"{file} agrees with {model}, by onnxruntime " in stdout
    assert f"30 random sessions (seed 0), {clicks} clicks, a list of 20 after each" in stdout
    assert f"lists: {clicks} the same, 0 the same but for ties, 0 others" in stdout


@pytest.mark.parametrize(
    ("weight", "by", "what"),
    [
        ("By.weight", lambda bias: bias + 1e-3, "score_difference"),
        ("G.0.weight_hh", lambda weight: weight * 1.01, "state_difference"),
        ("Wy.weight", lambda weight: weight * np.nan, "score_difference"),
    ],
    ids=["output", "state", "nan"],
)
def test_a_file_that_computes_otherwise_is_told_and_marked(
    weight: str, by: Callable[[np.ndarray], np.ndarray], what: str, file: Path, model: Path
) -> None:
    change(file, weight, by)
    status, stdout, _ = call("verify-export", file, model, "--sessions", 50)
    assert (status, "DISAGREES" in stdout) == (1, True)
    assert not recorded(file)["agrees"]
    assert recorded(file)[what] > 1e-4


def test_states_that_go_apart_are_told_where_no_score_shows_it(tmp_path: Path) -> None:
    separate = {"constrained_embedding": False, "embedding": 5}
    model = save_model(tmp_path / "m.gru4rec", changed=lambda weights: weights["Wy.weight"].fill(0), **separate)
    assert call("export", model, "--onnx", tmp_path / "m.onnx")[0] == 0
    change(tmp_path / "m.onnx", "G.0.weight_hh", lambda weight: weight * 1.01)
    status, _, _ = call("verify-export", tmp_path / "m.onnx", model, "--sessions", 50)
    outcome = recorded(tmp_path / "m.onnx")
    assert (status, outcome["agrees"], outcome["score_difference"], outcome["other_lists"]) == (1, False, 0, 0)


def test_a_file_that_names_other_items_is_told(file: Path, model: Path) -> None:
    change(file, "vocabulary", lambda ids: ids[::-1])
    status, _, _ = call("verify-export", file, model, "--sessions", 50)
    outcome = recorded(file)
    assert (status, outcome["agrees"], outcome["same_lists"]) == (1, False, 0)
    assert outcome["other_lists"] == outcome["clicks"]


@pytest.mark.parametrize(("gap", "kind"), [(5e-5, "tied_lists"), (5e-3, "other_lists")], ids=["tie", "no-tie"])
def test_items_may_change_places_only_where_the_models_scores_tie(gap: float, kind: str, tmp_path: Path) -> None:
    """Items 4 and 5 are the best, 4 by the gap; in the file it is 5."""

    def twins(weights: dict[str, np.ndarray]) -> None:
        weights["Wy.weight"][5] = weights["Wy.weight"][4]
        weights["By.weight"][[4, 5], 0] = [20 + gap, 20]

    model = save_model(tmp_path / "m.gru4rec", changed=twins)
    assert call("export", model, "--onnx", tmp_path / "m.onnx")[0] == 0
    change(tmp_path / "m.onnx", "By.weight", lambda bias: np.array([*bias[:4], bias[5], bias[4], *bias[6:]]))
    status, _, _ = call("verify-export", tmp_path / "m.onnx", model, "--sessions", 20)
    outcome = recorded(tmp_path / "m.onnx")
    assert status == (0 if kind == "tied_lists" else 1)
    assert (outcome["same_lists"], outcome[kind]) == (0, outcome["clicks"])


def test_a_file_of_another_model_is_refused_and_left_alone(file: Path, tmp_path: Path) -> None:
    other = save_model(tmp_path / "other.gru4rec", layers=[7])
    before = file.read_bytes()
    status, _, stderr = call("verify-export", file, other)
    assert (status, stderr.count("\n")) == (2, 1)
    assert f"{file} was exported from model version " in stderr
    assert file.read_bytes() == before


def test_a_file_whose_vocabulary_was_changed_is_refused(file: Path, model: Path) -> None:
    proto = onnx.load(file)
    texts = {each.key: each.value for each in proto.metadata_props}
    onnx.helper.set_model_props(proto, {**texts, "gru4rec.item_ids": json.dumps(list(range(N_ITEMS)))})
    onnx.save(proto, file)
    status, _, stderr = call("verify-export", file, model)
    assert (status, "its item ids are not those of" in stderr) == (2, True)


@pytest.mark.parametrize(
    ("weight", "by", "message"),
    [
        ("k", lambda k: k - 1, "what it gives has another shape than it says"),
        ("E.weight", lambda table: table[:3], "idx"),
    ],
    ids=["shape", "rows"],
)
def test_a_graph_that_cannot_run_is_refused(
    weight: str, by: Callable[[np.ndarray], np.ndarray], message: str, tmp_path: Path
) -> None:
    model = save_model(tmp_path / "m.gru4rec", constrained_embedding=False, embedding=5)
    assert call("export", model, "--onnx", tmp_path / "m.onnx")[0] == 0
    change(tmp_path / "m.onnx", weight, by)
    status, _, stderr = call("verify-export", tmp_path / "m.onnx", model, "--sessions", 50)
    assert (status, stderr.count("\n")) == (2, 1)
    assert re.match(rf"ModelFileError: .*m\.onnx is damaged, or no export: .*{message}", stderr), stderr


def test_a_wrong_byte_in_a_pt2_file_is_found_before_it_is_opened(model: Path, tmp_path: Path) -> None:
    assert call("export", model, "--pt2", tmp_path / "m.pt2")[0] == 0
    weight = load_bundle(model).weights["Wy.weight"].tobytes()
    broken = bytearray((tmp_path / "m.pt2").read_bytes())
    broken[broken.index(weight) + 10] ^= 1
    (tmp_path / "m.pt2").write_bytes(broken)
    status, _, stderr = call("verify-export", tmp_path / "m.pt2", model)
    assert (status, "the checksum of archive/data/weights/" in stderr) == (2, True)


def test_a_pt2_file_without_a_program_gets_one_message_and_no_traceback(model: Path, tmp_path: Path) -> None:
    assert call("export", model, "--pt2", tmp_path / "whole.pt2")[0] == 0
    with zipfile.ZipFile(tmp_path / "whole.pt2") as whole, zipfile.ZipFile(tmp_path / "m.pt2", "w") as part:
        for name in whole.namelist():
            if "/extra/" in name:
                part.writestr(name, whole.read(name))
    done = outside("verify-export", tmp_path / "m.pt2", model)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert done.stderr.endswith("cannot read the program in it. Copy or export it again\n")


@pytest.mark.parametrize("name", ["m.onnx", "m.pt2"])
def test_a_damaged_file_gets_one_message_or_a_bad_outcome(name: str, model: Path, tmp_path: Path) -> None:
    """Wherever it is cut or a byte is wrong; in a .pt2 file every byte that counts has a checksum."""
    file = tmp_path / name
    assert call("export", model, f"--{file.suffix[1:]}", file)[0] == 0
    whole = file.read_bytes()
    rng = np.random.default_rng(4)
    statuses = []
    for place in rng.integers(0, len(whole), 25).tolist():
        broken = bytearray(whole)
        broken[place] ^= 1 << int(rng.integers(8))
        for content in (bytes(broken), whole[:place]):
            file.write_bytes(content)
            status, _, stderr = call("verify-export", file, model, "--sessions", 3)
            assert (status, stderr.count("\n")) in ((0, 0), (1, 0), (2, 1)), stderr
            statuses.append(status)
    assert statuses.count(2) >= 25


def foreign_onnx(path: Path) -> None:
    value = onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [1])
    graph = onnx.helper.make_graph([onnx.helper.make_node("Identity", ["x"], ["y"])], "g", [value], [])
    graph.output.append(onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [1]))
    onnx.save(onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8), path)


def foreign_pt2(path: Path) -> None:
    torch.export.save(torch.export.export(torch.nn.Identity(), (torch.zeros(1),)), path)


@pytest.mark.parametrize(
    ("name", "make", "message"),
    [
        ("missing.onnx", lambda path: None, "cannot read {}: No such file or directory. Check the path"),
        ("folder", Path.mkdir, "cannot read {}: Is a directory. Check the path"),
        ("text.onnx", lambda path: path.write_text("hello"), "{} is damaged, or no export: Protobuf parsing failed. "),
        ("empty.onnx", Path.touch, "{} is damaged, or no export: "),
        ("foreign.onnx", foreign_onnx, "{} is not an export of gru4rec. Give a file that gru4rec export wrote"),
        ("foreign.pt2", foreign_pt2, "{} is not an export of gru4rec. Give a file that gru4rec export wrote"),
    ],
)
def test_what_is_no_export_is_refused(
    name: str, make: Callable[[Path], object], message: str, model: Path, tmp_path: Path
) -> None:
    make(tmp_path / name)
    status, _, stderr = call("verify-export", tmp_path / name, model)
    assert (status, stderr.count("\n")) == (2, 1)
    assert stderr.startswith(f"ModelFileError: {message.format(tmp_path / name)}")


def test_a_newer_format_asks_for_an_upgrade(file: Path, model: Path) -> None:
    proto = onnx.load(file)
    texts = {each.key: each.value for each in proto.metadata_props}
    about = json.loads(texts["gru4rec"])
    onnx.helper.set_model_props(proto, {**texts, "gru4rec": json.dumps({**about, "format_version": 2})})
    onnx.save(proto, file)
    status, _, stderr = call("verify-export", file, model)
    assert (status, "newer format. Upgrade: pip install -U gru4rec" in stderr) == (2, True)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ([], "nothing to write. Give --onnx OUT.onnx, --pt2 OUT.pt2 or both"),
        (["--pt2", "{}/m.bin"], "torch.export.load opens no file of such a name. Let it end in .pt2"),
        (["--onnx", "{}/m.pt2", "--pt2", "{}/m.pt2"], "--onnx and --pt2 both name {}/m.pt2. Give two paths"),
        (["--onnx", "{}/m.pt2", "--pt2", "{}/./m.pt2"], "--onnx and --pt2 both name {}/m.pt2. Give two paths"),
        (["--onnx", "{}/m.gru4rec"], "exporting {}/m.gru4rec onto itself would lose it"),
        (["--onnx", "{}/no/m.onnx"], "cannot save to {}/no/m.onnx: No such file or directory"),
        (["--onnx", "{}/ok.onnx", "--pt2", "{}/no/m.pt2"], "cannot save to {}/no/m.pt2: No such file or directory"),
        (["--onnx", "{}"], "cannot save to {}: it is a folder"),
        (["--onnx", "{}/m.onnx", "-k", "61"], "-k 61 is out of range: {}/m.gru4rec has 60 items"),
        (["--onnx", "{}/m.onnx", "-k", "0"], "0 is below 1"),
    ],
)
def test_wrong_flags_are_refused_and_nothing_is_written(
    flags: list[str], message: str, model: Path, tmp_path: Path
) -> None:
    status, _, stderr = call("export", model, *[flag.format(tmp_path) for flag in flags])
    assert (status, message.format(tmp_path) in stderr) == (2, True), stderr
    assert [path.name for path in tmp_path.iterdir()] == ["m.gru4rec"]


@pytest.mark.parametrize("kind", ["pop", "hybrid"])
def test_only_a_gru4rec_can_be_exported(kind: str, tmp_path: Path) -> None:
    sessions = make_sessions([[0, 1, 2], [1, 2, 0], [2, 0]])
    name = "pop" if kind == "pop" else "vsknn"
    settings = baseline_settings(name, {})
    fitted = Fitted(name, fit_baseline(name, sessions, settings), sessions.items, sessions.support(), settings)
    if kind == "hybrid":
        gru = fitted_gru(load_bundle(save_model(tmp_path / "gru", ids=[0, 1, 2])))
        fitted = hybrid_of(gru, fitted, HybridSettings())
    save(fitted, tmp_path / "b.gru4rec")
    status, _, stderr = call("export", tmp_path / "b.gru4rec", "--onnx", tmp_path / "b.onnx", "-k", 2)
    assert (status, f"holds a model of the kind '{kind}', not a GRU4Rec" in stderr) == (2, True)
    assert not (tmp_path / "b.onnx").exists()


def test_a_model_that_is_no_number_is_refused(tmp_path: Path) -> None:
    model = save_model(tmp_path / "m.gru4rec", changed=lambda weights: weights["Wy.weight"].fill(np.nan))
    status, _, stderr = call("export", model, "--onnx", tmp_path / "m.onnx")
    assert (status, "the model diverged. Train it again" in stderr) == (1, True)
    assert not (tmp_path / "m.onnx").exists()


@pytest.mark.parametrize("missing", ["onnx", "onnxruntime"])
def test_a_missing_extra_is_named_with_the_command(missing: str, file: Path, model: Path) -> None:
    argv = ("export", model, "--onnx", file) if missing == "onnx" else ("verify-export", file, model)
    done = outside(*argv, before=f"sys.modules[{missing!r}] = None")
    assert (done.returncode, done.stderr) == (
        2,
        f"ConfigError: an ONNX file needs {missing}, which is missing. Run: pip install 'gru4rec[export]'\n",
    )


def test_help_comes_without_the_runtimes() -> None:
    program = "from gru4rec.cli.main import _parser; _parser().format_help(); import sys; print(*sys.modules)"
    printed = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    assert not {"torch", "onnx", "onnxruntime"} & set(printed.split())
