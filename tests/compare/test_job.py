"""A whole comparison on a small shop: its numbers, its memory of finished parts, and its sanity checks."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from compare.shop_plan import MODELS, numbers, write_plan, write_shop
from conftest import make_sessions
from torch import Tensor

from gru4rec.baselines.files import Fitted, save
from gru4rec.baselines.kinds import baseline_settings, fit_baseline
from gru4rec.baselines.pop import PopularityScorer
from gru4rec.cli import main as door
from gru4rec.compare.checks import check_logs, check_model, unseen_targets
from gru4rec.compare.fitting import Machine
from gru4rec.compare.job import Outcome, compare
from gru4rec.compare.logs import cut
from gru4rec.compare.output import table_lines
from gru4rec.compare.plan import read_plan
from gru4rec.compare.plan_file import EvaluationPlan
from gru4rec.data.session_map import load_sessions
from gru4rec.data.sessions import Sessions
from gru4rec.evaluate.evaluator import evaluate
from gru4rec.evaluate.metrics import event_values
from gru4rec.evaluate.ranks import RankCounts

TUNED = "trials = 3\nmetric = 'recall@20 + mrr@20'"
LETTER = "\U00010330"
"""Of four bytes."""
PLAN = EvaluationPlan.model_validate({})


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("shop")
    write_shop(folder)
    return folder


@pytest.fixture(scope="module")
def outcome(shop: Path) -> Outcome:
    return compare(read_plan(write_plan(shop, tuning=TUNED)), shop / "out")


def by_name(results: dict[str, Any]) -> dict[str, Any]:
    return {model["name"]: model for model in results["models"]}


def test_every_model_is_measured_as_the_evaluator_measures_it(shop: Path, outcome: Outcome) -> None:
    models = by_name(outcome.results)
    train = load_sessions(shop / "train.tsv")
    test = load_sessions(shop / "test.tsv", vocabulary=train.items)
    recall, mrr = evaluate(PopularityScorer(train.support()), test).metrics([5, 20], "conservative")
    for k in (5, 20):
        assert models["popularity"]["metrics"]["recall"][str(k)]["value"] == pytest.approx(recall[k], abs=1e-12)
        assert models["popularity"]["metrics"]["mrr"][str(k)]["value"] == pytest.approx(mrr[k], abs=1e-12)
    values = {name: model["metrics"]["recall"]["20"] for name, model in models.items()}
    assert all(one["low"] <= one["value"] <= one["high"] for one in values.values())
    assert values["popularity"]["value"] < values["hybrid"]["value"]
    assert len(values["GRU4Rec"]["by_seed"]) == len(values["hybrid"]["by_seed"]) == 2
    assert values["GRU4Rec"]["deviation"] == pytest.approx(np.std(values["GRU4Rec"]["by_seed"], ddof=1))
    assert len(models["GRU4Rec"]["curves"]["2"]) == 2
    tied = models["GRU4Rec"]["ties"]["modes"]["conservative"]["recall"]["20"]
    assert tied == pytest.approx(values["GRU4Rec"]["value"]), "the plan's tie mode, the mean over seeds as well"


def test_every_model_but_those_left_out_gets_the_same_number_of_trials(outcome: Outcome) -> None:
    models = by_name(outcome.results)
    for name in ("Markov", "V-SkNN"):
        trials = models[name]["tuning"]["trials"]
        assert len(trials) == 3
        best = max(trials, key=lambda trial: trial["value"])
        assert trials[models[name]["tuning"]["best"]]["value"] == best["value"]
        assert models[name]["settings"].items() >= best["settings"].items()
    assert models["GRU4Rec"]["tuning"] is None
    assert "Settings were chosen on the validation log alone" in outcome.results["protocol"]["test_use"]


def test_best_model_is_compared_with_every_other(outcome: Outcome) -> None:
    best = max(outcome.results["models"], key=lambda model: model["metrics"]["recall"]["20"]["value"])["name"]
    pairs = [pair for pair in outcome.results["pairs"] if pair["metric"] == "recall"]
    assert {pair["a"] for pair in pairs} == {best}
    assert {pair["b"] for pair in pairs} == {model["name"] for model in outcome.results["models"]} - {best}
    assert all(pair["p_adjusted"] >= pair["p_value"] for pair in pairs)


def test_slices_cover_all_targets(shop: Path, outcome: Outcome) -> None:
    n_targets = load_sessions(shop / "test.tsv", vocabulary=load_sessions(shop / "train.tsv").items).n_targets
    slices = by_name(outcome.results)["V-SkNN"]["slices"]
    assert {"position in session", "session length", "item support", "target clicked before", "day"} == slices.keys()
    for name, groups in slices.items():
        assert sum(group["n_events"] for group in groups) == n_targets, name


def test_second_call_computes_nothing_and_gives_the_same_numbers(shop: Path, outcome: Outcome) -> None:
    again = compare(read_plan(write_plan(shop, tuning=TUNED)), shop / "out")
    assert again.n_parts_made == 0
    assert numbers(again.results) == numbers(outcome.results)


@pytest.mark.parametrize(
    "stop",
    [
        "trial 2 of 3",
        pytest.param("choosing the blend", marks=pytest.mark.slow),
        pytest.param("GRU4Rec: fitting", marks=pytest.mark.slow),
        "GRU4Rec: scoring",
    ],
)
def test_interrupted_comparison_goes_on_and_gives_the_same_numbers(
    shop: Path, outcome: Outcome, tmp_path: Path, stop: str
) -> None:
    plan = read_plan(write_plan(shop, tuning=TUNED))

    def interrupt(message: str) -> None:
        if stop in message:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        compare(plan, tmp_path, tell=interrupt)
    whole = compare(plan, tmp_path)
    assert whole.n_parts_found > 0
    assert numbers(whole.results) == numbers(outcome.results)


def test_changed_settings_are_computed_anew(shop: Path, outcome: Outcome) -> None:
    changed = MODELS.replace('name = "V-SkNN"', 'name = "V-SkNN"\nsettings = { k = 3 }')
    again = compare(read_plan(write_plan(shop, changed)), shop / "out")
    assert by_name(again.results)["V-SkNN"]["settings"]["k"] == 3
    assert again.n_parts_made > 0
    old, new = by_name(outcome.results)["V-SkNN"], by_name(again.results)["V-SkNN"]
    assert old["metrics"]["recall"]["20"]["value"] != new["metrics"]["recall"]["20"]["value"]


def test_model_that_diverges_is_a_failed_row(shop: Path, tmp_path: Path) -> None:
    models = """
[[models]]
kind = "pop"
[[models]]
kind = "gru4rec"
name = "wild"
settings = { layers = [8], n_epochs = 1, learning_rate = 1e30, loss = "bpr-max", n_sample = 16, elu_param = 0 }
"""
    results = compare(read_plan(write_plan(shop, models)), tmp_path).results
    assert "diverged" in by_name(results)["wild"]["error"] or "finite" in by_name(results)["wild"]["error"]
    assert by_name(results)["popularity"]["error"] is None


def test_remaining_targets_and_sampled_candidates_are_named(shop: Path, tmp_path: Path) -> None:
    plan = read_plan(write_plan(shop, '[[models]]\nkind = "markov"\n', evaluation="candidates = 20"))
    sampled = compare(plan, tmp_path).results
    assert sampled["protocol"]["candidates"] == 20
    plan = read_plan(write_plan(shop, '[[models]]\nkind = "markov"\n', evaluation="targets = 'remaining'"))
    remaining = compare(plan, tmp_path).results
    plan = read_plan(write_plan(shop, '[[models]]\nkind = "markov"\n'))
    full = compare(plan, tmp_path).results
    values = [one["models"][0]["metrics"]["recall"]["5"]["value"] for one in (sampled, full, remaining)]
    assert values[0] > values[1] + 0.1, "ranks among 20 items look better"
    assert values[1] != values[2]
    assert remaining["models"][0]["ties"] is None
    assert full["protocol"]["candidates"] is None, "never by default"


def test_command_writes_results_events_and_report(
    shop: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plan = write_plan(shop, '[[models]]\nkind = "pop"\n[[models]]\nkind = "vsknn"\n', evaluation="candidates = 20")
    assert door.main(["compare", str(plan), "-o", str(tmp_path / "o"), "-d", "cpu", "--events"]) == 0
    printed = capsys.readouterr().out
    assert printed.startswith("SAMPLED METRICS: 20 candidates; not comparable with full ranking\n")
    assert "V-SkNN" in printed
    results = json.loads((tmp_path / "o" / "results.json").read_text())
    assert by_name(results).keys() == {"popularity", "V-SkNN"}
    assert "not comparable with full ranking" in (tmp_path / "o" / "report.html").read_text()
    events = pq.read_table(tmp_path / "o" / "events" / "V-SkNN.parquet")
    hits = [row["item_id"] in row["list"] for row in events.to_pylist()]
    ranks = events["n_higher"].to_numpy() + events["n_equal_before"].to_numpy() + 1
    assert hits == (ranks <= 20).tolist()


def test_events_of_two_models_are_never_one_file(
    shop: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plan = write_plan(shop, '[[models]]\nkind = "pop"\nname = "A b"\n[[models]]\nkind = "pop"\nname = "a/B"\n')
    assert door.main(["compare", str(plan), "-o", str(tmp_path / "o"), "-d", "cpu", "--events"]) == 2
    assert "events of 'A b' and 'a/B' would be one file, a_B.parquet" in capsys.readouterr().err
    assert not (tmp_path / "o").exists()


def test_events_of_long_names_have_a_file(shop: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Sixty letters of four bytes; a file's name holds 255 bytes, and 200 of them are 50 letters."""
    plan = write_plan(shop, f'[[models]]\nkind = "pop"\nname = "{LETTER * 60}"\n')
    arguments = ["compare", str(plan), "-o", str(tmp_path / "o"), "-d", "cpu", "--events", "--no-report"]
    assert door.main(arguments) == 0
    assert [path.name for path in (tmp_path / "o" / "events").iterdir()] == [LETTER * 50 + ".parquet"]
    twins = "".join(f'[[models]]\nkind = "pop"\nname = "{LETTER * 55}{end}"\n' for end in "ab")
    write_plan(shop, twins)
    capsys.readouterr()
    assert door.main(arguments) == 2
    assert "would be one file" in capsys.readouterr().err


def test_work_of_other_threads_keeps_their_number(shop: Path, tmp_path: Path) -> None:
    plan = read_plan(write_plan(shop, '[[models]]\nkind = "pop"\n'))
    for threads in (2, 1):
        results = compare(plan, tmp_path, machine=Machine(threads=threads)).results
    assert results["machine"]["threads"] == 1
    cost = results["models"][0]["cost"]
    assert (cost["train_threads"], cost["evaluate_threads"]) == (2, 2)


def test_saved_model_has_no_training_time(shop: Path, tmp_path: Path) -> None:
    train, settings = load_sessions(shop / "train.tsv"), baseline_settings("pop", {})
    fitted = Fitted("pop", fit_baseline("pop", train, settings), train.items, train.support(), settings)
    save(fitted, tmp_path / "it.gru4rec")
    plan = write_plan(shop, f'[[models]]\nkind = "saved"\npath = "{tmp_path}/it.gru4rec"\n')
    results = compare(read_plan(plan), tmp_path).results
    cost = results["models"][0]["cost"]
    assert cost["train_s"] is None
    assert cost["load_s"] > 0
    assert [" - " in line for line in table_lines(results)] == [False, True]


def test_saved_model_that_was_fitted_to_the_test_log_is_flagged(shop: Path, tmp_path: Path) -> None:
    train = load_sessions(shop / "train.tsv")
    test = load_sessions(shop / "test.tsv", vocabulary=train.items)
    both = make_sessions([*_lists(train), *_lists(test)], train.items.n_items)
    leaky = Sessions(both.item_idx, both.offsets, both.start_time, train.items, "both logs")
    settings = baseline_settings("vsknn", {"k": 1, "m": 100})
    save(
        Fitted("vsknn", fit_baseline("vsknn", leaky, settings), train.items, leaky.support(), settings),
        tmp_path / "leaky.gru4rec",
    )
    models = f'[[models]]\nkind = "saved"\nname = "leaky"\npath = "{tmp_path}/leaky.gru4rec"\n{MODELS}'
    results = compare(read_plan(write_plan(shop, models)), tmp_path / "out").results
    errors = [check for check in results["checks"] if check["severity"] == "error"]
    assert [check["model"] for check in errors] == ["leaky"]
    assert "knows targets that it cannot have learned" in errors[0]["title"]


def _lists(sessions: Sessions) -> list[list[int]]:
    return [part.tolist() for part in np.split(sessions.item_idx, sessions.offsets[1:-1])]


def test_scorer_whose_lists_depend_on_the_future_is_flagged(monkeypatch: pytest.MonkeyPatch) -> None:
    test = make_sessions([[session % 7, (session + 1) % 7, (3 * session) % 7] for session in range(60)], 9)
    honest = PopularityScorer(np.arange(9))
    evaluation = evaluate(honest, test, list_length=5)
    unseen = np.zeros(test.n_targets, dtype=bool)
    assert list(check_model("honest", honest, evaluation, unseen, 5, PLAN)) == []

    class LooksAhead(PopularityScorer):
        """Ranks by what the whole log that is being read holds, which a shared iterator would let it see."""

        log = test

        def score_block(self, ready: tuple[Tensor, ...], start: int, stop: int) -> Tensor:
            import torch

            return torch.as_tensor(self.log.support()[start:stop]).double().expand(len(ready[0]), -1)

        score_items = lambda self, ready, idx: self.score_block(ready, 0, 9)[:, np.asarray(idx)]  # noqa: E731

    peeking = LooksAhead(np.arange(9))
    seen = evaluate(peeking, test, list_length=5)
    import gru4rec.compare.checks as checks

    def watched(scorer: Any, sessions: Sessions, **options: Any) -> Any:
        LooksAhead.log = sessions  # what a leaking pipeline hands to the model
        return evaluate(scorer, sessions, **options)

    monkeypatch.setattr(checks, "evaluate", watched)
    titles = [one["title"] for one in check_model("peeking", peeking, seen, unseen, 5, PLAN)]
    assert titles == ["peeking looks ahead"]


def test_shared_sessions_and_early_tests_are_flagged() -> None:
    train = make_sessions([[1, 2, 3, 4], [4, 3, 2, 1], [5, 6, 7, 8], [1, 3, 5, 7]], 9)
    test = make_sessions([[1, 2, 3, 4], [8, 7, 6, 5]], 9)
    severities = [one["severity"] for one in check_logs(train, test)]
    assert severities == ["error", "warning"]  # half of the sessions are shared; both begin before training ends
    later = Sessions(test.item_idx, test.offsets, np.array([10, 11]), test.items, "later")
    different = make_sessions([[8, 6, 4, 2], [7, 5, 3, 1]], 9)
    fine = Sessions(different.item_idx, different.offsets, later.start_time, test.items, "fine")
    assert [one["severity"] for one in check_logs(train, fine)] == ["good", "good"]


def test_unseen_targets_by_hand() -> None:
    train = make_sessions([[0, 1], [2, 3, 4]], 6)
    test = make_sessions([[0, 1, 4], [2, 4, 2], [5, 5]], 6)
    # 1 stood with 0; 4 with neither 0 nor 1; 4 stood with 2; 2 stood with 4; 5 is the click before itself
    assert unseen_targets(train, test).tolist() == [False, True, False, False, False]


def test_cut_gives_the_first_part_its_own_vocabulary() -> None:
    train = make_sessions([[0, 1], [1, 2], [2, 3, 1], [4, 1, 2]], 5)
    first, last = cut(train, 0.25)
    assert first.items.ids_of(range(first.items.n_items)) == [0, 1, 2, 3]
    assert last.item_idx.tolist() == [1, 2]
    assert last.n_unknown_events == 1


def test_sampled_ranks_are_those_of_a_drawn_list() -> None:
    """1,000 targets with 30 items above, 9 equals (4 before) and 60 below; 20 candidates: drawn here one by one."""
    n = 4_000
    counts = RankCounts(np.full(n, 30), np.full(n, 10), np.full(n, 4))
    sampled = counts.among_candidates(20, 100, seed=1)
    rng = np.random.default_rng(7)
    drawn = np.array([rng.choice(99, 20, replace=False) for _ in range(n)])  # 0..29 above, 30..38 equal, the rest below
    for mode, rank in (
        ("standard", 1 + (drawn < 30).sum(axis=1)),
        ("conservative", 1 + (drawn < 39).sum(axis=1)),
        ("no_dedupe", 1 + (drawn < 34).sum(axis=1)),
    ):
        found = event_values(sampled.ranks(mode), "recall", 5).mean()
        assert found == pytest.approx(np.mean(rank <= 5), abs=0.03), mode
        assert sampled.ranks(mode).mean() == pytest.approx(rank.mean(), abs=0.15), mode
