"""The six recipes give, row for row, what a slow and literal version gives (literal.py), on logs full of edge cases."""

from __future__ import annotations

import gzip
import json
import os
import re
import shlex
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as papq
import pytest
from conftest import ROOT
from prepare import raw_logs
from prepare.literal import DAY_MS, DAY_S, HOUR_MS, HOUR_S, RECIPES, Literal

from gru4rec.cli.main import main
from gru4rec.prepare.account import REASONS

PARTS = ("train_full", "test", "train_tr", "train_valid")
SEEDS = (0, 1, 2, 3)
CUT = ("rees46", "coveo", "retailrocket")
ISO = ("yoochoose", "rsc15")

Made = Callable[[str, int], tuple[Path, Literal]]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """Return the folder of a made-up raw log and what the literal version makes of it; each is made once."""
    known: dict[tuple[str, int], tuple[Path, Literal]] = {}

    def make(recipe: str, seed: int) -> tuple[Path, Literal]:
        if (recipe, seed) not in known:
            folder = tmp_path_factory.mktemp(f"{recipe}{seed}")
            raw_logs.WRITERS[recipe](folder, seed)
            known[recipe, seed] = folder, RECIPES[recipe](folder)
        return known[recipe, seed]

    return make


def prepare(recipe: str, raw: Path, out: Path, *flags: str) -> dict[str, Any]:
    assert main(["prepare", "--recipe", recipe, str(raw), "-o", str(out), "--quiet", *flags]) == 0
    return json.loads((out / "stats.json").read_text())


def same_rows(path: Path, expected: pd.DataFrame) -> None:
    """Compare a written part with the expected one: names, types, values, order."""
    if path.suffix == ".tsv":
        found = pd.read_csv(path, sep="\t", dtype=str)
        for name, kind in expected.dtypes.items():
            if kind == "int64":
                assert [str(int(text)) for text in found[name]] == list(found[name])
            if kind in ("int64", "float64"):
                found[name] = [(int if kind == "int64" else float)(text) for text in found[name]]
    else:
        table = papq.read_table(path)
        assert set(map(str, table.schema.types)) <= {"int64", "double", "string"}
        assert pa.types.is_floating(table.schema.field("Time").type) == (expected["Time"].dtype.kind == "f")
        found = table.to_pandas()
    pd.testing.assert_frame_equal(found, expected, check_exact=True, check_dtype=True)


# --- the same rows ---


@pytest.mark.parametrize("flags", [(), ("--tsv",)], ids=["parquet", "tsv"])
@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("recipe", RECIPES)
def test_recipe_made_up_log_equals_the_literal_version(
    recipe: str, seed: int, flags: tuple[str, ...], made: Made, tmp_path: Path
) -> None:
    raw, literal = made(recipe, seed)
    prepare(recipe, raw, tmp_path / "out", *flags)
    suffix = ".tsv" if flags else ".parquet"
    assert {path.stem for path in (tmp_path / "out").glob(f"*{suffix}")} == set(PARTS)
    for name in PARTS:
        same_rows(tmp_path / "out" / f"{name}{suffix}", literal.parts[name])


@pytest.mark.parametrize("recipe", RECIPES)
def test_recipe_compressed_files_give_the_same(recipe: str, made: Made, tmp_path: Path) -> None:
    _, literal = made(recipe, 1)
    packed = tmp_path / "packed"
    packed.mkdir()
    raw_logs.WRITERS[recipe](packed, 1)
    raw_logs.pack(packed)
    prepare(recipe, packed, tmp_path / "out")
    for name in PARTS:
        same_rows(tmp_path / "out" / f"{name}.parquet", literal.parts[name])


@pytest.mark.parametrize("recipe", RECIPES)
def test_recipe_lines_ended_as_on_windows_give_the_same(recipe: str, made: Made, tmp_path: Path) -> None:
    raw, literal = made(recipe, 2)
    other = tmp_path / "raw"
    other.mkdir()
    for path in raw.iterdir():
        (other / path.name).write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))
    prepare(recipe, other, tmp_path / "out")
    for name in PARTS:
        same_rows(tmp_path / "out" / f"{name}.parquet", literal.parts[name])


@pytest.mark.parametrize("recipe", ISO)
def test_recipe_one_fraction_of_a_second_makes_every_part_a_float(recipe: str, tmp_path: Path) -> None:
    """One type for the four files of a log, whichever part has the fraction."""
    raw = tmp_path / "raw"
    raw.mkdir()
    raw_logs.WRITERS[recipe](raw, 3)  # whole seconds
    assert RECIPES[recipe](raw).parts["test"]["Time"].dtype == "int64"
    session = RECIPES[recipe](raw).parts["train_tr"]["SessionId"].iloc[0]
    for path in raw.iterdir():
        lines = path.read_text().splitlines()
        for place, line in enumerate(lines):
            if line.startswith(f"{session},"):  # all its events a little later, so that their order stays
                lines[place] = line.replace(".000Z", ".250Z")
        path.write_text("\n".join(lines) + "\n")
    literal = RECIPES[recipe](raw)
    assert [literal.parts[name]["Time"].mod(1).any() for name in PARTS] == [True, False, True, False]
    prepare(recipe, raw, tmp_path / "out")
    for name in PARTS:
        same_rows(tmp_path / "out" / f"{name}.parquet", literal.parts[name])


def test_rees46_month_without_views_gives_the_same(made: Made, tmp_path: Path) -> None:
    """A file of which no row counts is nothing special."""
    raw, _ = made("rees46", 0)
    (tmp_path / "raw").mkdir()
    for name in ("2019-Oct.csv", "2019-Nov.csv"):
        content = (raw / name).read_text()
        (tmp_path / "raw" / name).write_text(content.replace(",view,", ",cart,") if "Oct" in name else content)
    literal = RECIPES["rees46"](tmp_path / "raw")
    prepare("rees46", tmp_path / "raw", tmp_path / "out")
    for name in PARTS:
        same_rows(tmp_path / "out" / f"{name}.parquet", literal.parts[name])


def test_rsc15_reads_training_clicks_only(made: Made, tmp_path: Path) -> None:
    raw, literal = made("rsc15", 0)
    assert (raw / "yoochoose-test.dat").exists()
    (tmp_path / "raw").mkdir()
    (tmp_path / "raw" / "yoochoose-clicks.dat").write_bytes((raw / "yoochoose-clicks.dat").read_bytes())
    account = prepare("rsc15", tmp_path / "raw", tmp_path / "out")
    assert account["rows"] == literal.n_rows == (raw / "yoochoose-clicks.dat").read_text().count("\n")
    same_rows(tmp_path / "out" / "train_full.parquet", literal.parts["train_full"])


def real_rows() -> Path:
    """Return the folder of real Diginetica rows, or skip the test where it is not on this machine."""
    folder = Path(os.environ.get("GRU4REC_DATA", ROOT.parent / "shared" / "data")) / "diginetica_raw_sample"
    if not (folder / "train-item-views.csv.gz").exists():
        pytest.skip(f"no {folder}/train-item-views.csv.gz: set GRU4REC_DATA to a folder with the real logs")
    return folder


def test_diginetica_real_rows_equal_the_literal_version(tmp_path: Path) -> None:
    raw = real_rows()
    literal = RECIPES["diginetica"](raw)
    account = prepare("diginetica", raw, tmp_path / "out")
    assert account["rows"] == literal.n_rows == 12_391
    for name in PARTS:
        assert len(literal.parts[name]) > 50
        same_rows(tmp_path / "out" / f"{name}.parquet", literal.parts[name])
    check_account(account, literal, "diginetica")


# --- the account ---


def check_account(account: dict[str, Any], literal: Literal, recipe: str) -> None:
    """Every row is somewhere, and every reason has the literal version's count."""
    (window,) = account["windows"]
    n_events = {name: window["parts"][name]["events"] for name in PARTS}
    assert account["rows"] == literal.n_rows
    assert account["rows"] == sum(account["dropped"].values()) + account["log"]["events"]
    assert account["log"]["events"] == n_events["train_full"] + n_events["test"] + sum(window["dropped"].values())
    assert n_events["train_full"] == n_events["train_tr"] + n_events["train_valid"] + sum(
        window["dropped_inside"].values()
    )
    dropped = Counter(account["dropped"])
    others = ("other_event", "only_for_the_cut", "no_item")
    assert {
        "other": sum(dropped.pop(reason, 0) for reason in others),
        "repeats": dropped.pop("repeat", 0),
        "short": dropped.pop("short_session", 0),
        "rare": dropped.pop("rare_item", 0),
    } == {"repeats": 0, **literal.dropped}
    assert not dropped
    names = {"after cut": "train_session_after_cut", "short": "train_session_of_one"}
    if recipe == "rsc15":
        names = {"unknown": "test_cold_item", "short": "test_session_of_one"}
    for found, wanted in (
        (window["dropped"], literal.split_dropped),
        (window["dropped_inside"], literal.inside_dropped),
    ):
        assert found == {names[reason]: count for reason, count in wanted.items() if count}
    assert account["log"]["events"] == len(literal.log)
    assert account["log"]["sessions"] == literal.log["session"].nunique()
    assert account["log"]["items"] == literal.log["item"].nunique()
    for name in PARTS:
        part = literal.parts[name]
        counted = {"events": len(part), "sessions": part["SessionId"].nunique(), "items": part["ItemId"].nunique()}
        assert {count: window["parts"][name][count] for count in counted} == counted


@pytest.mark.parametrize("seed", SEEDS[:2])
@pytest.mark.parametrize("recipe", RECIPES)
def test_stats_account_for_every_row_and_reason(recipe: str, seed: int, made: Made, tmp_path: Path) -> None:
    raw, literal = made(recipe, seed)
    account = prepare(recipe, raw, tmp_path / "out")
    assert account["recipe"] == recipe
    check_account(account, literal, recipe)


@pytest.mark.parametrize("recipe", RECIPES)
def test_stats_cuts_are_in_the_unit_of_the_files(recipe: str, made: Made, tmp_path: Path) -> None:
    raw, literal = made(recipe, 0)
    account = prepare(recipe, raw, tmp_path / "out")
    assert account["time_unit"] == ("s" if recipe in (*ISO, "rees46") else "ms")
    cuts = [cut / 1_000 for cut in literal.cuts] if recipe in ISO else list(literal.cuts)
    (window,) = account["windows"]
    assert [window["test_from"], window["valid_from"]] == cuts


def test_rsc15_compares_with_the_published_counts(made: Made, tmp_path: Path) -> None:
    raw, literal = made("rsc15", 0)
    account = prepare("rsc15", raw, tmp_path / "out")
    train, test = literal.parts["train_full"], literal.parts["test"]
    # arXiv:1511.06939, section 4: what is left of RSC15 for training and for testing
    assert [(row["part"], row["count"], row["published"], row["here"]) for row in account["published"]] == [
        ("train_full", "events", 31_637_239, len(train)),
        ("train_full", "sessions", 7_966_257, train["SessionId"].nunique()),
        ("train_full", "items", 37_483, train["ItemId"].nunique()),
        ("test", "events", 71_222, len(test)),
        ("test", "sessions", 15_324, test["SessionId"].nunique()),
    ]
    summary = (tmp_path / "out" / "summary.txt").read_text()
    assert "31,637,239" in summary
    assert "They differ" in summary


# --- the cases are really there ---


def file_places(recipe: str, raw: Path, seed: int) -> None:
    """The file order is not the order of sessions and times where the seed asks for that."""
    name = {"rees46": "2019-Nov.csv", "coveo": "release_10_23_2020.csv", "retailrocket": "events.csv"}.get(recipe)
    if name is None:
        return
    column = {"rees46": "event_time", "coveo": "server_timestamp_epoch_ms", "retailrocket": "timestamp"}[recipe]
    assert not pd.read_csv(raw / name)[column].is_monotonic_increasing or seed % 3 == 2


@pytest.mark.parametrize("recipe", RECIPES)
def test_made_up_log_has_every_edge_case(recipe: str, made: Made) -> None:
    """Else the tests above could pass without having tried them."""
    raw, literal = made(recipe, 0)
    file_places(recipe, raw, 0)
    events, log, (cut, valid_cut) = literal.events, literal.log, literal.cuts
    hour, day = (HOUR_S, DAY_S) if recipe == "rees46" else (HOUR_MS, DAY_MS)
    assert cut - valid_cut == (7 * day if recipe in ("retailrocket", "diginetica") else day)
    rows = events.assign(
        pause=events["time"] - events["time"].shift(),
        same_group=events["group"] == events["group"].shift(),
        same_session=events["session"] == events["session"].shift(),
        same_item=events["item"] == events["item"].shift(),
    )
    inside = rows[rows["same_group"]]

    # Order and sessions.
    assert (inside["pause"] == 0).sum() > 50
    assert ((inside["pause"] == 0) & ~inside["same_item"]).sum() > 20
    assert (inside["pause"] == hour).sum() > 20
    assert (inside["pause"] == hour + 1).sum() > 20
    if recipe in CUT:
        assert inside.loc[inside["pause"] == hour, "same_session"].all()
        assert not inside.loc[inside["pause"] == hour + 1, "same_session"].any()
        assert (inside["same_item"] & ~inside["same_session"]).sum() > 5  # a repeat across a cut is none
    else:
        # As far as the order goes, the item of one session's end can be that of the next one's begin.
        assert (~rows["same_session"] & rows["same_item"]).sum() >= 3
    assert (inside["same_item"] & inside["same_session"]).sum() > 50
    assert literal.dropped["repeats"] > 50 or recipe == "rsc15"
    if recipe in ("coveo", "retailrocket"):
        views = events[events["kept"]]
        pause = views["time"] - views["time"].shift()
        assert ((views["session"] == views["session"].shift()) & (pause > hour)).sum() >= 3  # bridged
        only_others = set(events["session"]) - set(views["session"])
        assert len(only_others) > 3  # numbers that no event of the log has
    if recipe == "rees46":
        everything = pd.concat([pd.read_csv(raw / name) for name in ("2019-Oct.csv", "2019-Nov.csv")])
        assert (everything["event_type"] != "view").sum() > 50
        times = pd.to_datetime(everything["event_time"].str.removesuffix(" UTC"))
        ordered = everything.assign(time=times).sort_values(["user_id", "time"], kind="stable")
        bridged = ordered["time"].diff(2) > pd.Timedelta(hours=1)
        single = (ordered["time"].diff() <= pd.Timedelta(hours=1)) & (
            ordered["time"].diff().shift() <= pd.Timedelta(hours=1)
        )
        other_between = ordered["event_type"].shift() != "view"
        ends_are_views = (ordered["event_type"] == "view") & (ordered["event_type"].shift(2) == "view")
        same_user = ordered["user_id"] == ordered["user_id"].shift(2)
        assert (bridged & single & other_between & ends_are_views & same_user).sum() >= 3  # bridged by no view
        november = pd.Timestamp("2019-11-01").timestamp()
        across = events.groupby("session")["time"].agg(["min", "max"])
        assert ((across["min"] < november) & (across["max"] >= november)).sum() >= 1

    # Filters.
    views = events[events["kept"]]
    unique = views[~((views["session"] == views["session"].shift()) & (views["item"] == views["item"].shift()))]
    if recipe == "rsc15":
        unique = views
    supports = Counter(Counter(unique["item"]).values())
    assert supports[4] >= 2
    assert supports[5] >= 2
    assert Counter(unique["session"].map(unique["session"].value_counts()))[1] > 50  # sessions of one
    assert literal.dropped["rare"] > 0
    if recipe == "rsc15":
        assert literal.rounds[1][0] > 0  # short only once rare items are gone
        assert (log["item"].map(log["item"].value_counts()) < 5).any()  # and it ends there
    else:
        assert len(literal.rounds) >= 6
        assert all(short and rare for short, rare in literal.rounds[:-1])
        assert log["item"].map(log["item"].value_counts()).min() == 5

    # Splits.
    span = log.groupby("session")["time"].agg(["min", "max"])
    for moment, losses in ((cut, literal.split_dropped), (valid_cut, literal.inside_dropped)):
        assert ((span["min"] < moment) & (span["max"] >= moment)).sum() >= 3
        assert (span["min"] == moment).any()
        assert (span["max"] == moment).any()
        assert (span["max"] == moment - 1).any()
        assert (span["min"] == moment - 1).any()
        assert all(count > 0 for count in losses.values())
        assert len(losses) == 2
    train, test = literal.parts["train_full"], literal.parts["test"]
    if recipe == "rsc15":
        assert set(test["ItemId"]) <= set(train["ItemId"])
    else:
        assert len(set(test["ItemId"]) - set(train["ItemId"])) >= 2
        assert len(set(literal.parts["train_valid"]["ItemId"]) - set(literal.parts["train_tr"]["ItemId"])) >= 2
    if recipe in ("rees46", "retailrocket"):
        assert log["time"].max() < (1575158400 if recipe == "rees46" else 1442545200000)


def test_made_up_logs_have_ids_and_times_of_all_kinds(made: Made) -> None:
    times = {seed: made("yoochoose", seed)[1].parts["test"]["Time"].dtype for seed in SEEDS}
    assert [times[seed].kind for seed in SEEDS] == ["f", "f", "f", "i"]
    headers = {(made("diginetica", seed)[0] / "train-item-views.csv").read_text().split(";")[0] for seed in SEEDS}
    assert headers == {"sessionId", "session_id"}
    for recipe in ("yoochoose", "rees46", "retailrocket", "diginetica"):
        items = made(recipe, 0)[1].parts["train_full"]["ItemId"].unique().tolist()
        assert sorted(items) != sorted(items, key=str)  # as integers, not as text
    assert made("coveo", 0)[1].parts["train_full"]["ItemId"].str.fullmatch("[0-9a-f]{64}").all()
    coveo = pd.read_csv(made("coveo", 0)[0] / "release_10_23_2020.csv")
    assert coveo["product_skus_hash"].isna().sum() > 50
    assert coveo["product_skus_hash"].str.contains("|", regex=False).any()
    assert (coveo["product_action"].isna() & coveo["product_skus_hash"].isna()).sum() > 50
    assert ((coveo["product_action"] == "add") & coveo["product_skus_hash"].isna()).sum() > 10
    diginetica = pd.read_csv(made("diginetica", 1)[0] / "train-item-views.csv", sep=";", keep_default_na=False)
    days = diginetica.groupby("sessionId")["eventdate"]
    assert (days.nunique() > 1).sum() > 50
    assert (days.first() != days.min()).sum() > 20  # the day that counts is not in the first row
    assert set(diginetica["userId"].astype(str)) == {"NA", "12345"}


# --- wrong input ---


def refused(capsys: pytest.CaptureFixture[str], *words: object) -> str:
    """Run a command that must be refused, and return its one message."""
    capsys.readouterr()
    assert main(["prepare", *map(str, words)]) == 2
    stderr = capsys.readouterr().err
    assert "Traceback" not in stderr
    assert stderr.count("\n") == 1
    return stderr


FILES = {
    "yoochoose": ("yoochoose-clicks.dat", "yoochoose-test.dat"),
    "rsc15": ("yoochoose-clicks.dat",),
    "rees46": ("2019-Oct.csv", "2019-Nov.csv"),
    "coveo": ("release_10_23_2020.csv",),
    "retailrocket": ("events.csv",),
    "diginetica": ("train-item-views.csv",),
}


@pytest.mark.parametrize(("recipe", "missing"), [(recipe, name) for recipe in FILES for name in FILES[recipe]])
def test_recipe_missing_file_is_named(
    recipe: str, missing: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    raw, out = tmp_path / "raw", tmp_path / "out"
    raw.mkdir()
    raw_logs.WRITERS[recipe](raw, 0)
    (raw / missing).unlink()
    message = refused(capsys, "--recipe", recipe, raw, "-o", out, "--quiet")
    assert message.startswith("DataError: ")
    assert missing in message
    assert str(raw) in message
    assert sorted(path.name for path in tmp_path.iterdir()) == ["raw"]


def test_recipe_wrong_folders_are_refused(made: Made, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    nowhere = refused(capsys, "--recipe", "retailrocket", tmp_path / "nowhere", "-o", out, "--quiet")
    assert nowhere.startswith("DataError: ")
    assert "nowhere" in nowhere
    assert "events.csv" in nowhere
    other = refused(capsys, "--recipe", "retailrocket", made("coveo", 0)[0], "-o", out, "--quiet")
    assert other.startswith("DataError: ")
    assert "events.csv" in other
    file = made("retailrocket", 0)[0] / "events.csv"
    assert main(["prepare", "--recipe", "retailrocket", str(file), "-o", str(tmp_path / "of a file"), "--quiet"]) == 0
    shutil.rmtree(tmp_path / "of a file")
    two = refused(capsys, "--recipe", "retailrocket", file.parent, file.parent, "-o", out, "--quiet")
    assert two.startswith("ConfigError: ")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("recipe", FILES)
def test_recipe_file_of_another_log_is_refused(recipe: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Files of the right name with other columns, and with nothing in them."""
    raw, out = tmp_path / "raw", tmp_path / "out"
    raw.mkdir()
    for content in ("user,item\n1,2\n", ""):
        for name in FILES[recipe]:
            (raw / name).write_text(content)
        message = refused(capsys, "--recipe", recipe, raw, "-o", out, "--quiet")
        assert message.startswith(("DataError: ", "ConfigError: "))
        assert FILES[recipe][0] in message
    assert sorted(path.name for path in tmp_path.iterdir()) == ["raw"]


def test_recipe_damaged_compressed_file_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    raw, out = tmp_path / "raw", tmp_path / "out"
    raw.mkdir()
    raw_logs.write_retailrocket(raw, 0)
    content = gzip.compress((raw / "events.csv").read_bytes())
    (raw / "events.csv").unlink()
    (raw / "events.csv.gz").write_bytes(content[: len(content) // 2])
    message = refused(capsys, "--recipe", "retailrocket", raw, "-o", out, "--quiet")
    assert message.startswith("DataError: ")
    assert "events.csv.gz" in message
    assert sorted(path.name for path in tmp_path.iterdir()) == ["raw"]


@pytest.mark.parametrize(
    "flags",
    [
        ("--gap", "2h"),
        ("--keep_repeats",),
        ("--min_session_length", "3"),
        ("--min_item_support", "5"),  # also where it says what the recipe says
        ("--one_pass",),
        ("--test_days", "1"),
        ("--test_from", "2014-09-29"),
        ("--test_fraction", "0.1"),
        ("--split_by", "end"),
        ("--cold_items", "drop"),
        ("--windows", "2"),
        ("--train_days", "7"),
        ("--session_key", "session_id"),
        ("--user_key", "user"),
        ("--item_key", "item"),
        ("--time_key", "time"),
        ("--time_unit", "ms"),
        ("--header", "a,b,c"),
        ("--separator", ";"),
        ("--keep", "event=view"),
        ("--keep_after_cut", "event=view"),
    ],
    ids=lambda flags: flags[0],
)
def test_recipe_with_a_flag_that_it_decides_is_refused(
    flags: tuple[str, ...], made: Made, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    raw, _ = made("retailrocket", 0)
    message = refused(capsys, "--recipe", "retailrocket", raw, "-o", tmp_path / "out", "--quiet", *flags)
    assert message.startswith("ConfigError: ")
    assert "--recipe" in message
    assert flags[0] in message
    assert not list(tmp_path.iterdir())


def test_unknown_recipe_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["prepare", "--recipe", "rsc16", str(tmp_path), "-o", str(tmp_path / "out")])
    assert stop.value.code == 2
    assert "rsc15" in capsys.readouterr().err


# --- the page ---

PAGE = (ROOT / "docs" / "prepare.md").read_text()


def test_page_commands_run_as_written_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All but those on logs that are not ours to ship."""
    monkeypatch.chdir(tmp_path)
    ran = Counter()
    for language, block in re.findall(r"^```(bash|python)\n(.*?)^```", PAGE, flags=re.MULTILINE | re.DOTALL):
        if language == "python":
            exec(block, {})
            continue
        for line in block.splitlines():
            program, *words = shlex.split(line)
            assert program == "gru4rec"
            if "$RAW" not in line:
                ran[words[0]] += 1
                assert main([*words, "--quiet"]) == 0, line
    assert ran == {"simulate": 1, "prepare": 7, "train": 1}
    assert (tmp_path / "rolling" / "window_3" / "test.parquet").exists()


def test_page_names_every_recipe_file_reason_and_field(made: Made, tmp_path: Path) -> None:
    account = prepare("rsc15", made("rsc15", 0)[0], tmp_path / "out")
    (window,) = account["windows"]
    for name in (*account, *account["log"], *window, *account["published"][0], *REASONS, *PARTS, *FILES):
        assert f"`{name}`" in PAGE or name in ("part", "count"), name
    for recipe, names in FILES.items():
        section = PAGE.partition(f"\n### {recipe}\n")[2].partition("\n### ")[0]
        assert f"--recipe {recipe} " in section
        assert all(f"`{name}`" in section for name in names)
