"""How fast a session kNN answers on one core, and how large its index is: python benchmarks/knn_times.py TRAIN TEST.

Every event of the test log but a session's last is a query: scores of all items, and the best 20.
"""

from __future__ import annotations

import argparse
import statistics
import time

import torch

from gru4rec.baselines.session_knn import SessionKNNScorer
from gru4rec.baselines.settings import SessionKNNSettings
from gru4rec.data.session_map import load_sessions
from gru4rec.evaluate.evaluator import evaluate


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("train")
    parser.add_argument("test")
    parser.add_argument("-m", type=int, default=1000, help="newest sessions (1000)")
    parser.add_argument("-k", type=int, default=500, help="neighbours (500)")
    parser.add_argument("--runs", type=int, default=3, help="the median of these is printed (3)")
    args = parser.parse_args()
    torch.set_num_threads(1)
    train = load_sessions(args.train)
    test = load_sessions(args.test, vocabulary=train.items)
    settings = SessionKNNSettings(m=args.m, k=args.k)
    evaluate(SessionKNNScorer.fit(train, settings), test.part(0, 10), list_length=20)  # compiles
    fits, queries = [], []
    for _ in range(args.runs):
        started = time.perf_counter()
        scorer = SessionKNNScorer.fit(train, settings)
        fits.append(time.perf_counter() - started)
        started = time.perf_counter()
        evaluate(scorer, test, list_length=20)
        queries.append(test.n_targets / (time.perf_counter() - started))
    print(
        f"{train.n_events:,} events, {train.items.n_items:,} items; m={args.m} k={args.k}; one thread, {args.runs} runs"
    )
    print(f"fit: {statistics.median(fits):.2f} s, {scorer.index.n_bytes / train.n_events:.1f} bytes an event")
    print(f"queries: {statistics.median(queries):,.0f} a second")


if __name__ == "__main__":
    main()
