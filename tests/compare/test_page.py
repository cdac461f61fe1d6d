"""The page of a comparison: what it says, that it cannot be broken by names, and the file it is written to."""

from __future__ import annotations

import copy
import json
import re
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from compare.made_up_results import BEST, FAILED, ITEM, LONG_ITEM, NAMES, ROLES, made_up

from gru4rec.compare.figures import DARK, LIGHT, Shown
from gru4rec.compare.output import table_lines
from gru4rec.compare.page import check_page, page_of, write_page
from gru4rec.compare.verdict import standings, verdict
from gru4rec.errors import ConfigError, DataError


class Parsed(HTMLParser):
    """The page's text by section, its tags, and what a browser would fetch."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.ids: list[str] = []
        self.handlers: list[str] = []
        self.addresses: list[str] = []
        self.sections: dict[str, str] = {}
        self.section = "head"
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        for name, value in attrs:
            self.ids += [str(value)] if name == "id" else []
            self.handlers += [name] if name.startswith("on") else []
            if name in ("src", "href", "xlink:href", "srcset", "data", "action") and not str(value).startswith("#"):
                self.addresses.append(f"{tag} {name}={value}")
        if tag == "section":
            self.section = str(dict(attrs)["id"])

    def handle_data(self, data: str) -> None:
        self.sections[self.section] = self.sections.get(self.section, "") + data


@pytest.fixture(scope="module")
def page() -> str:
    return page_of(made_up())


@pytest.fixture(scope="module")
def parsed(page: str) -> Parsed:
    return Parsed(page)


def small(**changes: Any) -> dict[str, Any]:
    """Return results of three models with few figures, so that a page takes no second."""
    results = made_up(n_models=3, n_examples=1, **changes)
    for model in results["models"]:
        model |= {"slices": {}, "curves": {}, "tuning": None} if model["error"] is None else {}
    return results


# --- what it says


def test_parts_come_in_order(parsed: Parsed) -> None:
    assert list(parsed.sections) == [
        "head", "checks", "leaderboard", "figures", "slices", "training", "ties", "lists", "cost", "protocol",
        "examples", "pairs", "settings", "repeat",
    ]  # fmt: skip


def test_verdict_names_best_interval_second_p_and_failed() -> None:
    # 0.62 against 0.40 + 0.021 x 9 = 0.589
    assert verdict(made_up()) == (
        f"{BEST} is best, with Recall@20 0.6200 (95 % interval 0.6090 to 0.6310), and its lead of 0.0310 over "
        f"_item kNN is significant (p = 0.012 after Holm's correction); {FAILED} failed."
    )


def test_verdict_of_an_unsure_lead_says_so() -> None:
    said = verdict(made_up(lead_is_sure=False))
    assert "but its lead of 0.0310 over _item kNN is not significant (p = 0.210 after Holm's correction)" in said
    assert "this log does not tell it from _item kNN; Crashed" in said


def test_verdict_names_all_that_are_not_told_apart() -> None:
    results = made_up(lead_is_sure=False)
    unsure = results["pairs"][1]  # written from the other's side
    assert unsure["b"] == BEST
    unsure["p_adjusted"] = 0.3
    assert f"does not tell it from _item kNN; nor from {unsure['a']}; " in verdict(results)
    results["pairs"][0]["p_adjusted"] = 0.01
    assert f"is significant (p = 0.010 after Holm's correction), unlike that over {unsure['a']}" in verdict(results)


def test_verdict_without_a_test_claims_none() -> None:
    results = made_up()
    results["pairs"] = []
    assert "but its difference from _item kNN was not tested" in verdict(results)


def test_verdict_of_one_model_and_of_none() -> None:
    results = small()
    for model in results["models"][1:]:
        model["error"] = "no memory"
    assert verdict(results).startswith(
        "Popularity has Recall@20 0.0500 (95 % interval 0.0390 to 0.0610), and there is no"
    )
    assert f"V-SkNN and {BEST} failed." in verdict(results)
    assert "no memory" in page_of(results)
    results["models"][0]["error"] = "no memory"
    assert verdict(results).startswith("Nothing can be compared: Popularity, V-SkNN and")
    assert "Nothing can be compared" in page_of(results)


def test_standings_are_by_the_primary_metric_with_failed_last() -> None:
    results = made_up()
    assert [shown.model["name"] for shown in standings(results)][:2] == [BEST, "_item kNN"]
    assert standings(results)[-1].model["name"] == FAILED
    assert standings(results)[-1].rank is None
    results["models"][0]["metrics"]["recall"]["20"]["value"] = 0.9
    assert standings(results)[0].model["name"] == "Popularity"


def test_checks_put_errors_first_and_fold_the_good(page: str, parsed: Parsed) -> None:
    said = parsed.sections["checks"]
    order = [said.index(word) for word in ("Beaten by chance", "Slow", "Few events", "2 checks passed", "No leak")]
    assert order == sorted(order)
    assert page.index("2 checks passed</summary>") < page.index("No leak")


def test_leaderboard_has_every_metric_interval_difference_and_deviation(parsed: Parsed) -> None:
    said = parsed.sections["leaderboard"]
    for model in made_up()["models"]:
        assert model["name"] in said
        for by_k in model.get("metrics", {}).values():
            for at in by_k.values():
                assert f"{at['value']:.4f}" in said
                assert f"{at['low']:.4f} to {at['high']:.4f}" in said
    assert "\u22120.0310" in said  # the second, seen from its side: 0.589 - 0.62
    assert "\u22120.0730" in said  # the third, whose pair is written from its side: 0.547 - 0.62
    assert "± 0.0031" in said
    assert "3 seeds" in said
    assert "failed: DivergedError: loss is nan in epoch 2 <oops>" in said


def test_each_figure_has_an_svg_of_its_own_ids_in_the_pages_ink(page: str, parsed: Parsed) -> None:
    # 3 metrics, as MAP is MRR here, 2 of cost, 5 kinds of slices x 2, 2 trained by epochs (places 2 and 5), 2 tuned
    assert parsed.tags.count("figure") == 3 + 2 + 10 + 2 + 2
    assert len(parsed.ids) == len(set(parsed.ids))
    for svg in re.findall(r"<figure>.*?</figure>", page, flags=re.DOTALL):
        assert "currentColor" in svg
        assert "var(--model-" in svg
        assert "#010203" not in svg
        assert "#01f0" not in svg


def test_slices_have_their_numbers_in_tables(parsed: Parsed) -> None:
    said = parsed.sections["slices"]
    for model in made_up()["models"]:
        for kind, parts in model.get("slices", {}).items():
            assert f"Numbers by {kind}" in said
            for part in parts:
                assert f"{part['n_events']:,} events" in said
                for at in (part["recall"], part["mrr"]):
                    assert f"{at['value']:.4f}" in said


def test_training_and_tuning_are_told_with_failed_trials(parsed: Parsed) -> None:
    said = parsed.sections["training"]
    # 7 x 0.8^10 = 0.7516; 10 x 12.5 s = 2.1 min
    assert "Seed 1: 10 epochs, 2.1 min, last loss 0.8516." in said
    assert "12 trials" in said
    assert "lr=0.05, layers=[64]" in said
    assert "DivergedError: <nan>" in said
    assert "0.5983" in said  # 0.62 x (0.8 + 0.015 x 11)


def test_ties_are_tabled_only_where_they_matter(parsed: Parsed) -> None:
    said = parsed.sections["ties"]
    assert "tiebreaking" in said
    assert "20.0 %" in said
    assert "0.2300" in said  # 0.05 + 3 x 0.06
    plain = Parsed(page_of(small(modes_differ=False))).sections["ties"]
    assert "Ties do not matter here" in plain
    assert "tiebreaking" not in plain
    assert "Tie modes are of one target" in Parsed(page_of(small(targets="remaining"))).sections["ties"]


def test_lists_and_costs_are_told_in_units(parsed: Parsed) -> None:
    assert all(title in parsed.sections["lists"] for title in ("Coverage", "Gini", "Popularity", "Novelty", "Repeats"))
    assert all(number in parsed.sections["lists"] for number in ("0.2400", "0.8900", "0.00340", "8.10", "0.0400"))
    assert all(
        number in parsed.sections["cost"] for number in ("19 s", "5.3 s", "27,778", "1.5 MB", "720 MB", "\u2013")
    )


def test_protocol_tells_dropped_events_and_use_of_the_test_log(parsed: Parsed) -> None:
    said = parsed.sections["protocol"]
    results = made_up()
    assert results["protocol"]["test_use"] in said
    assert "12 trials a model; validation: the last day" in said
    for log in results["data"]:
        assert log["path"] in said
        for key in ("n_events", "n_sessions", "n_items", "n_unknown_events", "n_unknown_items", "n_lost_sessions",
                    "n_single_event_sessions"):  # fmt: skip
            assert f"{log[key]:,}" in said
    assert "2026-01-01 00:00:00" in said
    assert "all items (full ranking)" in said


def test_examples_mark_the_target_and_its_rank(page: str, parsed: Parsed) -> None:
    said = parsed.sections["examples"]
    example = made_up()["examples"][0]
    assert said.count("target at rank 57") == sum(
        rank == 57 for e in made_up()["examples"] for rank in e["ranks"].values()
    )
    assert f"target at rank {example['ranks'][BEST]}" in said
    assert page.count('<li class="target"><bdi>') == sum(
        example["target"] in got for example in made_up()["examples"] for got in example["lists"].values()
    )
    assert LONG_ITEM in said


def test_pairs_settings_and_what_it_takes_to_repeat_are_there(parsed: Parsed) -> None:
    results = made_up()
    for pair in results["pairs"]:
        assert f"{abs(pair['difference']):.4f}" in parsed.sections["pairs"]
    assert "0.006" in parsed.sections["pairs"]
    for model in results["models"]:
        assert model["command"] in parsed.sections["settings"]
    assert "<u>&\"'" in parsed.sections["settings"]
    for text in (results["command"], results["plan"], "0" * 64, "1" * 64, "2.13.0"):
        assert text in parsed.sections["repeat"]
    assert len(ROLES) == 4
    assert "2" * 64 not in parsed.sections["repeat"]  # the parts used for tuning are no files


def test_digests_are_of_sessions_and_parts_of_one_log_are_told_apart() -> None:
    results = small()
    for log in results["data"]:
        log |= {"path": "/a/very/long/way/to/train.tsv", "digest": log["role"]}
    parsed = Parsed(page_of(results))
    for place, title in enumerate(("train.tsv", "train.tsv", "train.tsv (first part)", "train.tsv (last part)")):
        said = parsed.sections["repeat"].partition(f"Digest of the sessions in {title}{results['data'][place]['role']}")
        assert said[1], title
    assert "sha256" not in parsed.sections["repeat"]
    assert "train.tsv (last part)/a/very/long/way/to/train.tsv" in parsed.sections["protocol"]


def test_cost_of_loaded_models_of_nothing_and_of_other_threads_is_called_so() -> None:
    results = small()
    costs = [model["cost"] for model in results["models"]]
    costs[0] |= {"train_s": None, "load_s": 0.25, "model_bytes": 0}
    costs[1] |= {"train_threads": 2}
    costs[2] |= {"evaluate_threads": 8}
    page = page_of(results)
    said = Parsed(page).sections["cost"]
    assert "\u2013loading 0.25 s" in said
    assert "6.3 swith 2 threads" in said  # 2.1 x 3
    assert "5.3 swith 8 threads" in said  # 3.3 + 2
    assert said.count("threads") == 3, "the third is in what is said of all"
    assert "0 B" not in said
    assert page.count("Quality and training time") == 2, (
        "title and label of the figure that the two trained ones are in"
    )
    for cost in costs:
        cost |= {"train_s": None, "load_s": 0.25, "added_bytes": None}
    page = page_of(results)
    assert "Quality and training time" not in page
    assert "Memory it added" not in page


def test_memory_cannot_be_sorted_by(page: str) -> None:
    assert '<th scope="col">Memory it added</th>' in page


def test_map_is_shown_where_it_says_something_of_its_own() -> None:
    why = "MAP is not shown: with one target after each event it equals MRR."
    next_item, remaining, primary = small(), small(targets="remaining"), small()
    primary["protocol"]["primary"] = ["map", 20]
    primary["pairs"] = []
    for results, is_shown in ((next_item, False), (remaining, True), (primary, True)):
        page = page_of(results)
        assert ("MAP@5" in page) == is_shown
        assert ("MAP by list length" in page) == is_shown
        assert (why in page) != is_shown


def test_single_epoch_and_single_trial_stand_at_whole_numbers() -> None:
    results = small()
    results["models"][2] |= {
        "curves": {"1": [{"epoch": 1, "loss": 3.0, "seconds": 1.0}]},
        "tuning": {"trials": [made_up()["models"][2]["tuning"]["trials"][0]], "best": 0},
    }
    page = page_of(results)
    for title in ("Training loss", "Trials"):
        svg = page[page.index(f'aria-label="{title}"') :].partition("</svg>")[0]
        ticks = re.findall(r'<g id="[^"]*-xtick_\d+">.*?<text[^>]*>([^<]*)</text>', svg, flags=re.DOTALL)
        assert ticks == ["0", "1", "2"], title
    assert "1 <b>taken</b>" in page
    assert "up to 12 trials a model, as some spaces hold fewer" in page


def test_events_of_each_slice_stand_below_it() -> None:
    results = small()
    for model in results["models"]:
        parts = [
            {
                "slice": name,
                "n_events": n,
                "recall": {"value": 0.5, "low": 0.4, "high": 0.6},
                "mrr": {"value": 0.3, "low": 0.2, "high": 0.4},
            }
            for name, n in (("head (9 items)", 3210), ("tail", 7))
        ]
        model["slices"] = {"item support": parts}
    svg = page_of(results).partition('aria-label="Recall@20 by item support"')[2].partition("</svg>")[0]
    texts = re.findall(r"<text[^>]*>([^<]*)</text>", svg)
    assert {"head", "(9 items)", "3,210", "tail", "7", "item support; below it, events"} <= set(texts)


def test_ranks_of_examples_are_written_as_ranks() -> None:
    results = small()
    (example,) = results["examples"]
    names = list(example["ranks"])
    example["ranks"] = dict(zip(names, (14.0, 2.5, 1234.0), strict=True))
    said = Parsed(page_of(results)).sections["examples"]
    for text in ("rank 14", "rank 2.5", "rank 1,234"):
        assert f"target {'at '}{text}" in said
    assert "14.0" not in said


def test_star_of_the_terminal_and_verdict_of_the_page_agree_at_the_level_itself() -> None:
    """1 - 0.95 is a little more than 0.05, which is not below 0.05."""
    results = small(lead_is_sure=False)
    (pair,) = [pair for pair in results["pairs"] if pair["metric"] == "recall" and pair["b"] == "V-SkNN"]
    for p, is_apart in ((0.05, False), (0.0499, True)):
        pair["p_adjusted"] = p
        (line,) = [line for line in table_lines(results) if line.startswith("V-SkNN")]
        assert ("*" in line) == is_apart
        assert ("is significant" in verdict(results)) == is_apart


def test_sampled_metrics_are_called_so_loudly(page: str) -> None:
    loud = "Sampled metrics: not comparable with full ranking"
    assert loud not in page
    sampled = page_of(small(candidates=100))
    assert sampled.index(loud) < sampled.index("Sanity checks")
    assert "ranked among 100 sampled items" in sampled
    assert "all items (full ranking)" not in sampled


def test_page_of_the_smallest_comparison_is_drawn() -> None:
    results = made_up(n_models=3, n_days=1, n_examples=0)
    results["models"] = results["models"][2:]
    results["protocol"] |= {"k": [20], "n_trials": 0, "valid_rule": None}
    results |= {"pairs": [], "checks": []}
    (model,) = results["models"]
    model["metrics"] = {metric: {"20": by_k["20"]} for metric, by_k in model["metrics"].items()}
    model["slices"] = {"day": model["slices"]["day <b>UTC</b>"], "empty": []}
    model["curves"] = {"1": model["curves"]["1"][:1]}
    model["tuning"] = {"trials": [model["tuning"]["trials"][5]], "best": 5}  # the one that failed
    text = page_of(results)
    assert "there is no other model to compare it with" in text
    assert ">20,000</text>" in text  # 90,000 / 1.8^2 = 27,778 targets a second
    assert "No checks were made." in text
    assert "No check found anything wrong." not in text
    assert "Example sessions" not in text


# --- what it is made of


def test_names_ids_and_texts_are_escaped(page: str, parsed: Parsed) -> None:
    assert parsed.tags.count("script") == 1
    assert not {"img", "u", "i", "oops", "nan", "link", "iframe", "object", "embed"} & set(parsed.tags)
    assert parsed.handlers == []
    assert ITEM not in page
    for name in NAMES:
        assert name in parsed.sections["leaderboard"]


def test_page_loads_nothing_and_allows_its_own_script_only(page: str, parsed: Parsed) -> None:
    assert parsed.addresses == []
    assert not re.search(r"@import|url\((?!#)", page)
    assert set(re.findall(r"https?://[^\s\"'<)]*", page)) <= {
        "http://www.w3.org/2000/svg",
        "http://www.w3.org/1999/xlink",
    }
    assert re.search(
        r"content=\"default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-[\w+/]{43}='\"", page
    )


def test_same_dictionary_gives_the_same_page_and_stays_as_it_was() -> None:
    results = small()
    before = copy.deepcopy(results)
    first = page_of(results)
    assert results == before
    assert page_of(json.loads(json.dumps(results))) == first


def test_page_of_twelve_models_thirty_days_and_fifty_examples_stays_below_5_mb() -> None:
    text = page_of(made_up(n_models=12, n_days=30, n_examples=50))
    assert len(text.encode()) < 5_000_000
    assert text.count('class="example"') == 50


def test_models_of_one_colour_differ_in_marker_and_twelve_in_colour() -> None:
    looks = [Shown(place, None, {}) for place in range(24)]
    assert len({shown.colour for shown in looks[:12]}) == 12
    assert len({(shown.colour, shown.marker) for shown in looks}) == 24
    assert len({shown.marker for shown in looks[:12]}) == 12


def linear(colours: tuple[str, ...]) -> np.ndarray:
    """Return linear RGB (n, 3) of sRGB colours."""
    values = np.array([[int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)] for colour in colours])
    return np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)


SIGHT = {
    "usual": [1, 0, 0, 0, 1, 0, 0, 0, 1],
    # severity 1 of Machado, Oliveira and Fernandes, IEEE TVCG 15 (6), 2009
    "no red": [0.152286, 1.052583, -0.204868, 0.114503, 0.786281, 0.099216, -0.003882, -0.048116, 1.051998],
    "no green": [0.367322, 0.860646, -0.227968, 0.280085, 0.672501, 0.047413, -0.011820, 0.042940, 0.968881],
    "no blue": [1.255528, -0.076749, -0.178779, -0.078411, 0.930809, 0.147602, 0.004733, 0.691367, 0.303900],
}


def lab(linear_N3: np.ndarray) -> np.ndarray:
    """Return CIELAB (n, 3), D65."""
    xyz = linear_N3 @ np.array([[0.4124, 0.2126, 0.0193], [0.3576, 0.7152, 0.1192], [0.1805, 0.0722, 0.9505]])
    f = np.cbrt(np.maximum(xyz / [0.9505, 1.0, 1.089], 0.008856))
    return np.stack([116 * f[:, 1] - 16, 500 * (f[:, 0] - f[:, 1]), 200 * (f[:, 1] - f[:, 2])], axis=1)


@pytest.mark.parametrize("sight", SIGHT)
@pytest.mark.parametrize(("colours", "paper"), [(LIGHT, "#ffffff"), (DARK, "#181b1f")], ids=["light", "dark"])
def test_colours_stand_out_from_the_page_and_from_each_other(colours: tuple[str, ...], paper: str, sight: str) -> None:
    luminance = linear(colours) @ [0.2126, 0.7152, 0.0722]
    page = float((linear((paper,)) @ [0.2126, 0.7152, 0.0722])[0])
    high, low = np.maximum(luminance, page), np.minimum(luminance, page)
    assert ((high + 0.05) / (low + 0.05) >= 3).all()
    seen = lab(np.clip(linear(colours) @ np.reshape(SIGHT[sight], (3, 3)).T, 0, 1))
    distance = np.linalg.norm(seen[:, None] - seen[None], axis=2) + 1e9 * np.eye(len(colours))
    assert distance[:6, :6].min() > 14
    assert distance.min() > 6  # about 2.3 can be told apart at all


# --- the file


def test_results_of_another_format_are_refused() -> None:
    with pytest.raises(DataError, match="cannot show results of format 'gru4rec-comparison', version 3: this version"):
        page_of(made_up() | {"format_version": 3})
    with pytest.raises(DataError, match="cannot show results of format None"):
        page_of({})


def test_page_is_written_and_replaced(tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    write_page(small(), path)
    assert path.read_text(encoding="utf-8") == page_of(small())
    write_page(small(candidates=50), path)
    assert "50 sampled items" in path.read_text(encoding="utf-8")
    assert [file.name for file in tmp_path.iterdir()] == ["report.html"]


@pytest.mark.parametrize("text", ["<html>my notes</html>", '<meta name="generator" content="gru4rec doctor">'])
def test_page_of_somebody_else_is_left_alone(text: str, tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    path.write_text(text)
    with pytest.raises(ConfigError, match="is there, and is no page that gru4rec compare wrote"):
        write_page(small(), path)
    assert path.read_text() == text


def test_page_interrupted_keeps_the_old_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "report.html"
    write_page(small(), path)
    old = path.read_text(encoding="utf-8")

    def full(self: Path, target: Path) -> Path:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(DataError, match="No space left on device"):
        write_page(small(candidates=50), path)
    assert path.read_text(encoding="utf-8") == old
    assert [file.name for file in tmp_path.iterdir()] == ["report.html"]


@pytest.mark.parametrize(
    ("name", "error", "fragment"),
    [
        ("report", ConfigError, "needs a name that ends in .html or .htm"),
        ("missing/report.html", DataError, "cannot write"),
        (".", DataError, "not a regular file"),
    ],
)
def test_path_that_is_no_pages_is_refused(name: str, error: type[Exception], fragment: str, tmp_path: Path) -> None:
    with pytest.raises(error, match=fragment):
        check_page(tmp_path / name)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("library", ["jinja2", "matplotlib"])
def test_page_without_its_libraries_says_what_to_install(
    library: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(ConfigError, match=rf"a page needs {library}.*pip install 'gru4rec\[report\]'"):
        check_page(tmp_path / "report.html")
    assert list(tmp_path.iterdir()) == []
