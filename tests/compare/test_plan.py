"""Plans: what is read, and what is refused before anything is computed."""

from __future__ import annotations

from pathlib import Path

import pytest
from compare.shop_plan import MODELS, write_plan

from gru4rec.compare.plan import read_plan
from gru4rec.errors import ConfigError

GRU = '[[models]]\nkind = "gru4rec"\nname = "G"\n'
VSKNN = '[[models]]\nkind = "vsknn"\n'
BLEND = '[[models]]\nkind = "hybrid"\nmodel = "G"\nneighbours = "B"\n'
DIMENSION = '{ name = "k", dtype = "int", values = [5, 9] }'
PARTS = 'train_tr = "a.tsv"\ntrain_valid = "b.tsv"'
POP = '[[models]]\nkind = "pop"\n'


def test_plan_is_read_with_defaults_filled_in(tmp_path: Path) -> None:
    plan = read_plan(write_plan(tmp_path, tuning="trials = 4\nmetric = 'recall@20 + mrr@5'"))
    assert [row.name for row in plan.rows] == ["popularity", "Markov", "V-SkNN", "GRU4Rec", "hybrid"]
    assert plan.primary == ("recall", 20)
    assert plan.judged_by == (("recall", 20), ("mrr", 5))
    assert plan.data.train == str(tmp_path / "train.tsv")
    assert plan.rows[2].settings["k"] == 100
    assert plan.rows[3].settings["layers"] == [16]
    assert plan.rows[3].seeds == (1, 2)
    assert plan.rows[3].space is None, "tune = false"
    assert plan.rows[2].space is not None
    assert plan.rows[0].space is None, "popularity has nothing to tune"
    assert plan.needs_valid


def test_plan_without_tuning_and_hybrid_needs_no_validation_log(tmp_path: Path) -> None:
    assert not read_plan(write_plan(tmp_path, POP)).needs_valid


def test_paths_hold_variables_and_folders_of_prepare(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("train_full", "test", "train_tr", "train_valid"):
        (tmp_path / f"{name}.parquet").touch()
    monkeypatch.setenv("SHOP_LOGS", str(tmp_path))
    path = tmp_path / "plan.toml"
    path.write_text(f'[data]\nfolder = "$SHOP_LOGS"\n{POP}')
    data = read_plan(path).data
    assert data.train == str(tmp_path / "train_full.parquet")
    assert data.train_valid == str(tmp_path / "train_valid.parquet")


WRONG = [
    ("", {"models": ""}, "models is missing"),
    ("", {"models": POP.replace("pop", "popp")}, r"unknown kind 'popp'.*did you mean 'pop'\?"),
    ("", {"models": POP + "speed = 3\n"}, "nothing reads speed of model 'pop'"),
    ("", {"models": POP + POP}, "two models are called 'popularity'"),
    ("", {"models": POP + "seeds = [1]\n"}, "seeds has no effect on a pop"),
    ("", {"models": POP + "settings = { k = 3 }\n"}, "unknown setting 'k'"),
    (
        "",
        {"models": '[[models]]\nkind = "vsknn"\nsettings = { kk = 3 }\n'},
        r"unknown setting 'kk'.*did you mean 'k'\?",
    ),
    ("", {"models": '[[models]]\nkind = "vsknn"\nsettings = { k = 0 }\n'}, "k=0 in plan .* does not fit"),
    ("", {"models": '[[models]]\nkind = "gru4rec"\nsettings = { layers = [0] }\n'}, "layers"),
    ("", {"models": '[[models]]\nkind = "gru4rec"\nsettings = { seed = 3 }\n'}, r"write seeds = \[3\]"),
    ("", {"models": '[[models]]\nkind = "hybrid"\nmodel = "GRU4Rec"\n'}, "neighbours is missing"),
    (
        "",
        {"models": '[[models]]\nkind = "hybrid"\nmodel = "A"\nneighbours = "B"\n'},
        "made of 'A', which is no model of",
    ),
    ("", {"models": '[[models]]\nkind = "saved"\n'}, "path is missing"),
    ("", {"evaluation": 'primary = "recall@7"'}, "primary = 'recall@7' is not measured"),
    ("", {"evaluation": "candidates = 100\ntargets = 'remaining'"}, "candidates are sampled for the next item only"),
    ("", {"evaluation": "candidates = 19"}, "candidates = 19 are too few for lists of 20"),
    ("", {"evaluation": 'primary = "recall@²"'}, "primary = 'recall@²' is not measured"),
    ("", {"models": POP + "name = 3\n"}, "name of model 3 = 3 does not fit"),
    ("", {"models": POP + 'name = "A"\nspeed = 3\n'}, "nothing reads speed of model 'A'"),
    ("", {"models": "[[models]]\nname = 'A'\n"}, "kind of model 'A' is missing"),
    ("", {"models": GRU + VSKNN + BLEND.replace("B", "vsknn")}, r"made of 'vsknn', .* Call it 'V-SkNN'"),
    ("", {"models": VSKNN + f"space = [{DIMENSION}]\n"}, "model 'V-SkNN': space has no effect without tuning.trials"),
    (
        "",
        {"models": VSKNN + f"tune = false\nspace = [{DIMENSION}]\n", "tuning": "trials = 2"},
        "model 'V-SkNN': space has no effect beside tune = false",
    ),
    (
        "",
        {"models": POP + BLEND + f"space = [{DIMENSION}]\n", "tuning": "trials = 2"},
        "model 'hybrid': space has no effect on a hybrid",
    ),
    (
        "",
        {"models": '[[models]]\nkind = "saved"\npath = "x"\nspace = "y.json"\n', "tuning": "trials = 2"},
        "model 'saved': space has no effect on a saved",
    ),
    (
        "",
        {
            "models": '[[models]]\nkind = "gru4rec"\nspace = [{ name = "seed", dtype = "int", values = [1, 9] }]\n',
            "tuning": "trials = 2",
        },
        "model 'gru4rec': seed in space has no effect, as seeds decide it",
    ),
    ("", {"tuning": "metric = 'recall@20'"}, "tuning.metric has no effect without tuning.trials"),
    ("", {"data": "valid_share = 0.2"}, "data.valid_share has no effect, as no model is tuned or blended"),
    ("", {"data": PARTS}, "data.train_tr has no effect, as no model is tuned or blended"),
    (
        "",
        {"data": f"{PARTS}\nvalid_share = 0.2", "models": VSKNN, "tuning": "trials = 2"},
        "data.valid_share has no effect, as there are train_tr and train_valid",
    ),
    ("", {"evaluation": "tees = 'standard'"}, r"nothing reads evaluation.tees.*did you mean 'ties'\?"),
    ("", {"evaluation": "level = 2"}, "evaluation.level = 2"),
    ("", {"tuning": "metric = 'speed@20'"}, "tuning.metric = 'speed@20' is not measured"),
    ("", {"data": 'train_tr = "a.tsv"'}, "train_tr and train_valid belong together"),
    ("", {"data": 'folder = "x"'}, "data.folder beside single logs"),
    ("", {"data": 'train_valid = "$NO_SUCH_VARIABLE/x"'}, "the variable NO_SUCH_VARIABLE is not set"),
]


@pytest.mark.parametrize(("name", "changes", "message"), WRONG, ids=[str(place) for place in range(len(WRONG))])
def test_wrong_plan_is_refused(tmp_path: Path, name: str, changes: dict[str, str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        read_plan(write_plan(tmp_path, **{"models": POP, **changes}))


def test_gru4rec_is_tuned_with_a_named_space_only(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="to tune it, name a search space"):
        read_plan(write_plan(tmp_path, MODELS.replace("tune = false", ""), tuning="trials = 2"))
    space = '[[models]]\nkind = "gru4rec"\nspace = "space.json"\n'
    (tmp_path / "space.json").write_text('{"name": "layerz", "dtype": "int", "values": [64, 512]}\n')
    with pytest.raises(ConfigError, match="unknown parameter 'layerz'"):
        read_plan(write_plan(tmp_path, space, tuning="trials = 2"))
    (tmp_path / "space.json").write_text('{"name": "momentum", "dtype": "float", "values": [0, 0.9], "step": 0.05}\n')
    rows = read_plan(write_plan(tmp_path, space, tuning="trials = 2")).rows
    assert rows[0].space is not None
    assert rows[0].space[0].name == "momentum"


def test_missing_plan_and_broken_toml_are_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot read plan"):
        read_plan(tmp_path / "none.toml")
    (tmp_path / "broken.toml").write_text("[data\n")
    with pytest.raises(ConfigError, match="is not TOML"):
        read_plan(tmp_path / "broken.toml")
