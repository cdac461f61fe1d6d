"""Every wrong input of a search ends with exit status 2 and one message that says what, where and what to do.

Nothing is made or changed: the run folder is not there afterwards.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from tune.small_shop import FIXED, call, words

from gru4rec.errors import ConfigError
from gru4rec.tune.checks import check_space
from gru4rec.tune.space import Dimension, draw, read_space, space_of

GOOD_START = (
    "gru4rec_params = dict(layers=[{layers}], learning_rate=0.2, n_epochs=1, n_sample=16, batch_size={batch})\n"
)


def space(*lines: str) -> Callable[[Path], list[Any]]:
    """A space file, in place of the good one."""

    def flags(folder: Path) -> list[Any]:
        (folder / "wrong.json").write_text("\n".join(lines))
        return ["-opf", folder / "wrong.json"]

    return flags


def flags(*given: Any) -> Callable[[Path], list[Any]]:
    return lambda folder: list(given)


def start(text: str, *more: Any) -> Callable[[Path], list[Any]]:
    def found(folder: Path) -> list[Any]:
        (folder / "start.py").write_text(text)
        return ["--start", folder / "start.py", *more]

    return found


def a_file(folder: Path) -> list[Any]:
    (folder / "file").touch()
    return ["--run-dir", folder / "file"]


def not_a_database(folder: Path) -> list[Any]:
    (folder / "foreign.db").write_text("this is no database, and stays as it is. " * 40)
    return ["--storage", f"sqlite:///{folder / 'foreign.db'}"]


BPREG = '{"name": "bpreg", "dtype": "float", "values": [0, 2], "when": {"loss": "bpr-max"}}'
ROWS: list[tuple[str, Callable[[Path], Sequence[Any]], tuple[str, ...]]] = [
    ("unknown-setting", space('{"name": "learning_rat", "dtype": "float", "values": [0.1, 0.2]}'),
     ("unknown parameter 'learning_rat' in the search space", "wrong.json", "did you mean 'learning_rate'?")),
    ("wrong-value", space('{"name": "dropout_p_embed", "dtype": "float", "values": [0, 1.5]}'),
     ("dropout_p_embed=1.5 in the search space", "wrong.json", "give a number, >= 0, < 1")),
    ("wrong-choice", space('{"name": "loss", "dtype": "categorical", "values": ["bprmax"]}'),
     ("unknown loss 'bprmax'", "wrong.json", "did you mean 'bpr-max'?")),
    ("also-fixed", space('{"name": "n_sample", "dtype": "int", "values": [8, 16]}'),
     ("'n_sample' is in the search space", "wrong.json and in -fp (16)", "Leave it out of one")),
    ("condition-on-nothing", space(BPREG), ("the condition of 'bpreg'", "'loss', which is neither drawn before")),
    ("condition-never-met", space('{"name": "loss", "dtype": "categorical", "values": ["cross-entropy"]}', BPREG),
     ("the condition of 'bpreg'", "loss=bpr-max, which is never drawn (values: cross-entropy)")),
    ("condition-drawn-later", space(BPREG, '{"name": "loss", "dtype": "categorical", "values": ["bpr-max"]}'),
     ("the condition of 'bpreg'", "neither drawn before it nor fixed")),
    ("condition-with-wrong-value", space('{"name": "loss", "dtype": "categorical", "values": ["bpr-max"]}',
     BPREG.replace("bpr-max", "bpr")), ("unknown loss 'bpr' in the condition of 'bpreg'", "Choose")),
    ("no-json", space("layers=100"), ("search space", "wrong.json is not JSON, an object a line")),
    ("no-space", flags("-opf", "/nowhere/space.json"), ("cannot read search space /nowhere/space.json", "Check the")),
    ("wrong-fixed", flags("-fp", "n_epoch=1"), ("unknown parameter 'n_epoch' in -fp", "did you mean 'n_epochs'?")),
    ("start-outside", start(GOOD_START.format(layers=64, batch=16)),
     ("start.py has layers=64, which is outside of the search space (int 4, 12)", "Widen the space")),
    ("start-with-other-fixed", start(GOOD_START.format(layers=8, batch=32)),
     ("start.py has batch_size=32, which the search space does not draw: trials have 16", "-fp batch_size=32")),
    ("start-is-missing", flags("--start", "/nowhere.py"), ("cannot read parameter file /nowhere.py",)),
    ("start-and-resume", start(GOOD_START.format(layers=8, batch=16), "--resume"), ("--start is for a study",)),
    ("resume-nothing", flags("--resume"), ("there is no study 'run' in sqlite:///", "Leave --resume out")),
    ("unknown-storage", flags("--storage", "mysql://me:secret@host/x"),
     ("cannot keep a study at --storage mysql:...", "Give sqlite:///FILE, journal:FILE or postgresql://")),
    ("storage-with-one-slash", flags("--storage", "postgresql:/me:secret@host/x"),
     ("cannot keep a study at --storage postgresql:...",)),
    ("port-is-no-number", flags("--storage", "postgresql://me:secret@host:abc/x"),
     ("cannot keep a study at --storage postgresql:...", "@HOST:PORT/NAME")),
    ("port-too-high", flags("--storage", "postgresql://me:secret@host:65536/x"),
     ("cannot keep a study at --storage postgresql:...", "@HOST:PORT/NAME")),
    ("password-with-an-at", flags("--storage", "postgresql://me:to@secret@host/x"),
     ("cannot keep a study at --storage postgresql:...", "%40 for an @ in the password")),
    ("storage-without-folder", flags("--storage", "sqlite:////nowhere/x.db"),
     ("there is no folder /nowhere for --storage", "Make it")),
    ("storage-is-no-database", not_a_database,
     ("cannot open the storage sqlite:///", "file is not a database", "Check")),
    ("run-folder-is-a-file", a_file, ("the run folder", "is a file. Give another --run-dir")),
    ("k-too-large", flags("-m", "101"), ("cannot measure at k=101: the model has 100 items",)),
    ("final-k-too-large", flags("-fm", "5", "1000"), ("cannot measure at k=1000",)),
    ("no-module", flags("-g", "nowhere"), ("no module 'nowhere' for -g",)),
    ("no-device", flags("-d", "gpu"), ("unknown device 'gpu'. Choose auto, cpu or cuda:N",)),
    ("seeds-of-a-seed", flags("-fp", f"{FIXED},seed=3", "--candidate-seeds", "2"),
     ("--candidate-seeds varies the seed, which -fp or the search space sets",)),
]  # fmt: skip


@pytest.mark.parametrize(("given", "fragments"), [row[1:] for row in ROWS], ids=[row[0] for row in ROWS])
def test_wrong_input_is_one_clear_message_and_leaves_nothing(
    given: Callable[[Path], Sequence[Any]], fragments: Sequence[str], shop: Path, tmp_path: Path
) -> None:
    more = given(tmp_path)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    status, stdout, stderr = call([*words(shop, tmp_path / "run", "-q"), *more])
    assert (status, stdout) == (2, "")
    assert stderr.count("\n") == 1
    for fragment in fragments:
        assert fragment in stderr
    assert "secret" not in stderr
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("name", ["path", "test"])
def test_missing_log_is_named(name: str, shop: Path, tmp_path: Path) -> None:
    argv = words(shop, tmp_path / "run", "-q")
    argv[0 if name == "path" else 1] = str(tmp_path / "missing.tsv")
    status, _, stderr = call(argv)
    assert (status, "missing.tsv" in stderr) == (2, True)
    assert not (tmp_path / "run").exists()


# --- spaces with conditions ---


class HighestTrial:
    """Draws the highest value, or the last one."""

    def suggest_int(self, name: str, low: int, high: int, *, step: int, log: bool) -> int:
        return high

    def suggest_float(self, name: str, low: float, high: float, *, step: float | None, log: bool) -> float:
        return high

    def suggest_categorical(self, name: str, choices: list[Any]) -> Any:
        return choices[-1]


LOSS = {"name": "loss", "dtype": "categorical", "values": ["bpr-max", "cross-entropy"]}
LOGQ = {"name": "logq", "dtype": "float", "values": [0, 1], "when": {"loss": "cross-entropy"}}
ELU = {"name": "elu_param", "dtype": "float", "values": [0, 1], "when": {"loss": ["bpr-max"]}}


def test_conditional_setting_is_drawn_only_where_its_condition_holds() -> None:
    space = space_of([LOSS, LOGQ, ELU], where="here", conditional=True)
    check_space(space, {}, where="here")
    assert draw(space, HighestTrial(), {}) == {"loss": "cross-entropy", "logq": 1}
    assert draw(space[1:], HighestTrial(), {"loss": "bpr-max"}) == {"loss": "bpr-max", "elu_param": 1}


def test_conditions_are_refused_where_nobody_heeds_them(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"'logq' of the search space in here has a condition \(when\)"):
        space_of([LOSS, LOGQ], where="here")


def test_lists_of_layers_are_choices() -> None:
    (layers,) = space_of([{"name": "layers", "dtype": "categorical", "values": [[100], [200, 100]]}], where="here")
    check_space([layers], {}, where="here")
    assert draw([layers], HighestTrial(), {}) == {"layers": "200/100"}
    assert layers.holds([200, 100])
    assert not layers.holds([100, 200])


@pytest.mark.parametrize("name", ["gru4rec_xe_standard_parspace", "gru4rec_bprmax_standard_parspace", "rr_xe"])
def test_known_spaces_pass(name: str) -> None:
    path = Path(__file__).parents[2] / "paramspaces" / f"{name}.json"
    space = read_space(path, conditional=True)
    check_space(space, {}, where=str(path))
    assert all(isinstance(dimension, Dimension) for dimension in space)
