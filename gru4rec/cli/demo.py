"""``gru4rec demo``: train on a made-up shop and show the result beside the best possible one."""

from __future__ import annotations

import argparse
import json
import time
from typing import TYPE_CHECKING, Any

from gru4rec.cli.common import add_device_option, add_output_options, add_threads_option, output_of, progress, say

if TYPE_CHECKING:
    from gru4rec.api import GRU4Rec
    from gru4rec.data.sessions import Sessions
    from gru4rec.data.simulate import Shop
    from gru4rec.data.simulated_logs import LogColumns, Split

HELP = "train on a made-up shop and compare with the best possible result"

K = 20
SEED = 42
SETTINGS: dict[str, Any] = {
    "layers": [100],
    "batch_size": 64,
    "n_sample": 512,
    "learning_rate": 0.1,
    "dropout_p_hidden": 0.3,
    "logq": 1.0,
    "n_epochs": 4,
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the flags."""
    parser.add_argument("--seed", type=int, default=SEED, help="seed of the shop and of training (42)")
    add_device_option(parser)
    add_threads_option(parser)
    add_output_options(parser)


def train_demo(path: str) -> None:
    """Train on the made-up shop and save the model."""
    from gru4rec.api import GRU4Rec

    _, split = _shop(SEED)
    gru = GRU4Rec(device="cpu", seed=SEED, **SETTINGS)
    gru.fit(_sessions(split.train))
    gru.savemodel(path)


def run(args: argparse.Namespace) -> int:
    """Carry the command out."""
    from gru4rec.api import GRU4Rec
    from gru4rec.baselines.pop import PopularityScorer
    from gru4rec.data.simulated_logs import optimal_metrics
    from gru4rec.evaluate.evaluator import evaluate

    started = time.perf_counter()
    shop, split = _shop(args.seed)
    train = _sessions(split.train)
    test = _sessions(split.test, train)
    say(
        args,
        f"a made-up shop: {train.n_events:,} clicks, {train.items.n_items:,} items, {train.n_sessions:,} sessions",
    )

    gru = GRU4Rec(device=args.device, seed=args.seed, **SETTINGS)
    output = output_of(args)
    with progress(args, "training", train.n_targets * gru.settings.n_epochs) as on_step:
        gru.fit(train, on_epoch=output.epoch, on_step=on_step, threads=args.threads)

    optimum = optimal_metrics(shop, *split.test, train_item_ids=split.train.item_id, cutoff=[K])
    rows = {"best possible": (optimum["realised_recall"][K], optimum["realised_mrr"][K])}
    for name, scorer in (("GRU4Rec", gru.scorer()), ("popularity", PopularityScorer(train.support()))):
        recall, mrr = evaluate(scorer, test).metrics([K], "conservative")
        rows[name] = (recall[K], mrr[K])
    if args.json:
        print(json.dumps({"event": "demo", "k": K, "rows": {name: list(row) for name, row in rows.items()}}))
        return 0
    _print_rows(rows)
    _print_example(gru, split.test)
    print(f"\n{time.perf_counter() - started:.0f} seconds in all. Next: gru4rec simulate data, then see README.md.")
    return 0


def _shop(seed: int) -> tuple[Shop, Split]:
    """Return the shop and its log, split by time."""
    from gru4rec.data.simulate import ShopSettings, simulate_shop
    from gru4rec.data.simulated_logs import split_by_time

    shop = simulate_shop(ShopSettings(seed=seed))
    return shop, split_by_time(shop.session_id, shop.item_id, shop.time)


def _sessions(log: LogColumns, train: Sessions | None = None) -> Sessions:
    import pyarrow as pa

    from gru4rec.data.events import load_events
    from gru4rec.data.sessions import Sessions

    table = pa.table({"SessionId": log.session_id, "ItemId": log.item_id, "Time": log.time})
    return Sessions.from_log(load_events(table), None if train is None else train.items)


def _print_rows(rows: dict[str, tuple[float, float]]) -> None:
    best_recall, best_mrr = rows["best possible"]
    print(f"\n{'on the last two days':<22}{'Recall@' + str(K):>10}{'MRR@' + str(K):>10}   share of the best possible")
    for name, (recall, mrr) in rows.items():
        print(f"{name:<22}{recall:>10.4f}{mrr:>10.4f}   {recall / best_recall:>6.1%} / {mrr / best_mrr:.1%}")


def _print_example(gru: GRU4Rec, test: LogColumns) -> None:
    """Show what the model recommends while the first visitor of the test days clicks."""
    clicks = test.item_id[test.session_id == test.session_id[0]].tolist()
    session = gru.session()
    print("\na visitor clicks, the model recommends:")
    for item_id, next_item in zip(clicks, [*clicks[1:], None], strict=True):
        session.update(item_id)
        listed = session.recommend(5, exclude="seen").item_ids
        print(f"  {item_id:>8} -> {'  '.join(f'[{i}]' if i == next_item else str(i) for i in listed)}")
    print("  (in brackets: what the visitor clicked next)")
