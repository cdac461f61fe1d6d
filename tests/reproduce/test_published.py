"""The published numbers are all there with their settings; the verdict on made-up numbers, worked out by hand."""

from __future__ import annotations

from typing import Any

import pytest

from gru4rec.config import read_parameter_file, setting_values
from gru4rec.errors import ConfigError
from gru4rec.evaluate.ranks import TIE_MODES
from gru4rec.prepare.recipes import RECIPES
from gru4rec.reproduce.published import (
    EVAL_TYPE,
    PUBLISHED,
    Comparison,
    find_parameter_file,
    overall,
    published_row,
)

# --- what was published ---

TABLE = """
rsc15        .1845 .4906 .2954 .6218 .3130 .7283 .3205
yoochoose    .1829 .4478 .2783 .5715 .2949 .6789 .3024
rees46       .1114 .3010 .1778 .4135 .1928 .5293 .2008
coveo        .0513 .1496 .0852 .2212 .0946 .3135 .1010
retailrocket .1274 .3237 .1977 .4207 .2107 .5186 .2175
diginetica   .0725 .2369 .1288 .3542 .1442 .4995 .1542
"""
METRICS = ["Recall@1", "Recall@5", "MRR@5", "Recall@10", "MRR@10", "Recall@20", "MRR@20"]


@pytest.mark.parametrize("line", TABLE.strip().splitlines(), ids=lambda line: line.split()[0])
def test_published_numbers_are_those_of_the_table(line: str) -> None:
    name, *values = line.split()
    assert published_row(name).metrics == dict(zip(METRICS, map(float, values), strict=True))


def test_every_recipe_has_a_row_and_a_parameter_file_of_its_own() -> None:
    assert PUBLISHED.keys() == RECIPES.keys()
    files = {find_parameter_file(row.parameter_file) for row in PUBLISHED.values()}
    assert len(files) == 6
    assert all(row.parameter_file.startswith(f"{name}_") for name, row in PUBLISHED.items())
    assert EVAL_TYPE in TIE_MODES


@pytest.mark.parametrize("name", PUBLISHED)
def test_settings_are_those_of_the_parameter_file_but_for_rsc15(name: str) -> None:
    row = PUBLISHED[name]
    values = setting_values(row.settings())
    in_file = read_parameter_file(find_parameter_file(row.parameter_file))
    others = {setting: values[setting] for setting in in_file if values[setting] != in_file[setting]}
    assert others == (
        {}
        if name != "rsc15"
        else {
            "learning_rate": 0.1,
            "momentum": 0.0,
            "dropout_p_embed": 0.1,
            "dropout_p_hidden": 0.0,
            "sample_alpha": 0.75,
        }
    )
    assert values["n_epochs"] == 10
    assert values["seed"] is None
    assert row.settings(n_epochs=2, seed=5).n_epochs == 2


def test_unknown_data_set_names_the_nearest() -> None:
    with pytest.raises(ConfigError, match=r"unknown data set 'RSC-15'\. Choose one of .*; did you mean 'rsc15'\?"):
        published_row("RSC-15")
    with pytest.raises(ConfigError, match=r"unknown data set 'movielens'\. Choose one of [a-z0-9, ]*$"):
        published_row("movielens")


def test_missing_parameter_file_says_what_to_do() -> None:
    with pytest.raises(ConfigError, match=r"there is no parameter file none\.py in .* Install gru4rec again"):
        find_parameter_file("none.py")


# --- the verdict on one metric ---

VERDICTS = [
    (0.2000, "PASS"),
    (0.2020, "PASS"),  # + 1% of 0.2 is 0.0020, which still counts
    (0.1980, "PASS"),
    (0.2021, "PASS (within 5%)"),
    (0.1979, "PASS (within 5%)"),
    (0.2100, "PASS (within 5%)"),  # + 5% is 0.0100
    (0.1900, "PASS (within 5%)"),
    (0.2101, "FAIL"),
    (0.1899, "FAIL"),
    (0.4000, "FAIL"),
    (0.0000, "FAIL"),
]


@pytest.mark.parametrize(("here", "verdict"), VERDICTS)
def test_verdict_follows_the_distance_in_both_directions(here: float, verdict: str) -> None:
    assert Comparison("MRR@20", 0.2, (here,)).verdict == verdict


def test_seeds_are_judged_by_their_mean_and_deviate_as_samples_do() -> None:
    one = Comparison("MRR@20", 0.2, (0.1, 0.2, 0.3))  # each end alone would be a FAIL
    assert one.verdict == "PASS"
    assert one.mean == pytest.approx(0.2)
    assert one.difference_frac == pytest.approx(0)
    assert one.deviation == pytest.approx(0.1)  # sqrt((0.01 + 0 + 0.01) / 2)
    assert Comparison("MRR@20", 0.2, (0.1,)).deviation is None


# --- the verdict on all ---


def compared(*here: float) -> list[Comparison]:
    return [Comparison(f"Recall@{place}", 0.2, (value,)) for place, value in enumerate(here, 1)]


SAME: dict[str, Any] = {"part": "train_full", "count": "events", "published": 1000, "here": 1000}
OTHER: dict[str, Any] = {**SAME, "count": "items", "here": 999}


def test_overall_is_as_good_as_the_farthest_metric() -> None:
    verdict, reason = overall(compared(0.2, 0.2002, 0.1982), [SAME], [])
    assert (verdict, reason) == ("PASS", "3 metrics; the farthest from what was published is Recall@3 (-0.90%)")
    verdict, reason = overall(compared(0.2, 0.206), [], [])
    assert (verdict, reason) == (
        "PASS (within 5%)",
        "2 metrics; the farthest from what was published is Recall@2 (+3.00%)",
    )


def test_overall_fail_names_what_is_too_far() -> None:
    verdict, reason = overall(compared(0.2, 0.18, 0.208), [], [])
    assert (verdict, reason) == ("FAIL", "1 of 3 metrics differ by more than 5%: Recall@2 (-10.00%)")


def test_overall_much_better_fails_and_says_why() -> None:
    verdict, reason = overall(compared(0.2, 0.22), [], [])
    assert verdict == "FAIL"
    assert "Recall@2 (+10.00%). Better than published is no reproduction either" in reason


def test_overall_other_counts_fail_whatever_the_metrics() -> None:
    verdict, reason = overall(compared(0.2), [SAME, OTHER], [])
    assert verdict == "FAIL"
    assert "999 train_full items, not 1,000. Is the raw log complete?" in reason
    assert "events" not in reason


@pytest.mark.parametrize("here", [0.2, 0.4])
def test_overall_another_protocol_is_not_comparable_whatever_the_metrics(here: float) -> None:
    verdict, reason = overall(compared(here), [OTHER], ["n_epochs was 1 and not 10"])
    assert (verdict, reason) == (
        "not comparable",
        "this is not the published protocol: n_epochs was 1 and not 10",
    )
