"""What keeping hidden states in float16 costs: lists after each click of a test log, beside those of float32."""

from __future__ import annotations

import argparse
import itertools

import numpy as np
import torch

from gru4rec.baselines.files import load
from gru4rec.data.events import load_events
from gru4rec.data.sessions import Sessions
from gru4rec.serve.recommender import Recommender

K = 20


def main() -> None:
    """Print the share of equal lists, the overlap, and Recall of both."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model")
    parser.add_argument("test")
    args = parser.parse_args()
    fitted = load(args.model)
    recommender = Recommender(fitted.scorer, fitted.items, fitted.support)
    test = Sessions.from_log(load_events(args.test), fitted.items)
    filters = recommender.filters(K)
    same, overlap, hits = [], [], {"float32": 0, "float16": 0}
    for start, stop in itertools.pairwise(test.offsets):
        clicks = test.item_idx[start:stop].tolist()
        states = {kind: recommender.start(1) for kind in hits}
        for item_idx, target in itertools.pairwise(clicks):
            lists = {}
            for kind in hits:
                state = recommender.states_of([[item_idx]], states[kind])
                lists[kind] = recommender.lists(state, [clicks[:1]], [0], [filters])[0].item_ids
                half = tuple(layer.to(torch.float16).to(torch.float32) for layer in state)
                states[kind] = half if kind == "float16" else state
                hits[kind] += fitted.items.ids_of([target])[0] in lists[kind]
            same.append(lists["float32"] == lists["float16"])
            overlap.append(len(set(lists["float32"]) & set(lists["float16"])) / K)
    n = len(same)
    print(f"{n:,} lists of {K}: {np.mean(same):.1%} equal, {np.mean(overlap):.3%} of items the same")
    print(f"Recall@{K}: float32 {hits['float32'] / n:.5f}, float16 {hits['float16'] / n:.5f}")


if __name__ == "__main__":
    main()
