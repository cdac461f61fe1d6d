"""Run by several processes: the sharded step against the fast one, which each runs by itself, over all kinds of models.

The argument is how many of the settings to try: all, or every second, third, ... one. Every process prints a line of
JSON when all agreed; else it ends with a traceback.
"""

from __future__ import annotations

import itertools
import json
import sys
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gru4rec.config import hyper_parameters
from gru4rec.data.batches import Batch
from gru4rec.data.negatives import SampleStore
from gru4rec.data.sessions import Sessions
from gru4rec.data.vocabulary import Vocabulary
from gru4rec.distributed.draws import SharedStore
from gru4rec.distributed.group import Group, joined
from gru4rec.distributed.scorer import ShardedScorer
from gru4rec.distributed.step import ShardedStep
from gru4rec.evaluate.evaluator import evaluate
from gru4rec.model.initial import initialise
from gru4rec.model.network import GRU4RecModel
from gru4rec.model.scorer import GRUScorer
from gru4rec.model.shard import Shard
from gru4rec.train.fast_step import FastStep
from gru4rec.train.optim import IndexedAdagradM
from gru4rec.train.step import BatchStep

N_ITEMS, N_LANES, BATCH_SIZE = 30, 5, 6
MODES: dict[str, dict[str, Any]] = {
    "shared": {"constrained_embedding": True},
    "separate": {"constrained_embedding": False, "embedding": 8},
    "none": {"constrained_embedding": False, "embedding": 0},
}
LOG_SUPPORT = torch.log(torch.arange(1, N_ITEMS + 1).double())


def all_settings() -> Iterator[dict[str, Any]]:
    """Losses, input modes, negatives; the rest goes round, so that each value meets each mode and loss."""
    rest = itertools.cycle(
        [
            {"layers": [7], "dropout_p_hidden": 0.4, "dropout_p_embed": 0.2, "momentum": 0.3, "logq": 0.8},
            {"layers": [9, 6], "grad_accumulation": 4, "gru_variant": "reset_before", "elu_param": 0.0},
            {"layers": [7, 7], "dropout_p_embed": 0.3, "grad_accumulation": 3, "elu_param": 0.5},
            {"layers": [6], "gru_variant": "reset_before", "dropout_p_hidden": 0.5, "logq": 1.0, "momentum": 0.1},
        ]
    )
    for loss, mode, n_sample, _ in itertools.product(("cross-entropy", "bpr-max"), MODES, (11, 0, "all"), range(3)):
        chosen = {**next(rest)}
        if n_sample == "all" or loss == "bpr-max":
            chosen.pop("logq", None)
        yield {"loss": loss, "n_sample": n_sample, "bpreg": 0.7, **MODES[mode], **chosen}


def batches(n_sample: int | str) -> list[Batch]:
    """Random batches with repeated items and session starts; lanes become empty until one is left."""
    rng, result = np.random.default_rng(0), []
    for lanes in ([0, 1, 2, 3, 4],) * 4 + ([0, 2, 4],) * 2 + ([2, 4], [4]):
        items = rng.integers(0, N_ITEMS, (2, len(lanes)), dtype=np.int32)
        negatives = rng.integers(0, N_ITEMS, n_sample if isinstance(n_sample, int) else 0, dtype=np.int32)
        resets = rng.random(len(lanes)) < 0.3
        lane = np.array(lanes, dtype=np.int32)
        result.append(Batch(lane, lane, items[0], items[1], resets, negatives))
    return result[:-1] if n_sample == 0 else result  # a single lane has nothing to be compared with


def model_of(settings: dict[str, Any], shard: Shard) -> tuple[GRU4RecModel, IndexedAdagradM]:
    rng = torch.Generator().manual_seed(3)
    model = GRU4RecModel(shard.n_rows, hyper_parameters(settings), rng=rng).double()
    initialise(model, seed=1, shard=shard)
    model.By.weight.copy_(torch.linspace(-0.5, 0.5, N_ITEMS)[shard.rank :: shard.n_ranks].unsqueeze(1))
    optimizer = IndexedAdagradM(model.parameters(), lr=model.settings.learning_rate, momentum=model.settings.momentum)
    return model, optimizer


def trained(step: BatchStep, settings: dict[str, Any]) -> dict[str, Tensor]:
    """Train an epoch; returns losses, weights, and what the optimiser holds."""
    step.start_epoch()
    result = {f"loss {number}": step(batch) for number, batch in enumerate(batches(settings["n_sample"]))}
    step.end_epoch()
    states = step.state()
    assert states is not None
    result |= {f"state {layer}": state for layer, state in enumerate(states)}
    assert isinstance(step, FastStep | ShardedStep)
    for name, weight in step.model.named_parameters():
        result[name] = weight.detach()
        result |= {f"{name} {part}": values for part, values in step.optimizer.state[weight].items()}
    return result


def check(settings: dict[str, Any], group: Group) -> float:
    """Compare the two; returns the largest relative difference of a loss."""
    shard = Shard(group.rank, group.n_ranks, N_ITEMS)
    size = {"n_lanes": N_LANES, "batch_size": BATCH_SIZE}
    own_log_support = LOG_SUPPORT[shard.rank :: shard.n_ranks].contiguous()
    expected = trained(FastStep(*model_of(settings, Shard(0, 1, N_ITEMS)), LOG_SUPPORT, **size), settings)
    actual = trained(ShardedStep(*model_of(settings, shard), group, shard, own_log_support, **size), settings)
    assert actual.keys() == expected.keys()
    for name, values in expected.items():
        is_table = values.dim() == 2 and len(values) == N_ITEMS
        own = values[shard.rank :: shard.n_ranks] if is_table else values
        torch.testing.assert_close(actual[name], own, rtol=1e-10, atol=1e-13, msg=f"{name} with {settings}")
    losses = [name for name in expected if name.startswith("loss")]
    return max(float(abs(actual[name] / expected[name] - 1)) for name in losses)


def check_ranks(group: Group) -> None:
    """Compare ranks and lists with those of one process; scores of the model are few, so that ties are many."""
    rng, shard = np.random.default_rng(1), Shard(group.rank, group.n_ranks, N_ITEMS)
    offsets = np.arange(0, 201, 5)
    sessions = Sessions(
        rng.integers(0, N_ITEMS, 200, dtype=np.int32), offsets, offsets[:-1], Vocabulary(np.arange(N_ITEMS)), "random"
    )
    for mode in MODES.values():
        whole, part = (model_of({"layers": [4], **mode}, one)[0] for one in (Shard(0, 1, N_ITEMS), shard))
        for model, rows in ((whole, slice(None)), (part, slice(group.rank, None, group.n_ranks))):
            model.Wy.weight.zero_()
            model.By.weight.copy_((torch.arange(N_ITEMS) * 7 % 4)[rows].unsqueeze(1))
        expected = evaluate(GRUScorer(whole), sessions, list_length=N_ITEMS)
        actual = evaluate(ShardedScorer(part, group, shard), sessions, list_length=N_ITEMS)
        for counts in ("n_higher", "n_equal", "n_equal_before"):
            np.testing.assert_array_equal(getattr(actual.counts, counts), getattr(expected.counts, counts))
        assert expected.lists_TK is not None
        assert actual.lists_TK is not None
        np.testing.assert_array_equal(actual.lists_TK, expected.lists_TK)


def check_draws(group: Group) -> None:
    """Compare negatives with those of one process: few items and many, some of which nearly always come."""
    rng = np.random.default_rng(2)
    for support in (
        np.ones(N_ITEMS),
        rng.integers(1, 50, N_ITEMS),
        rng.zipf(1.3, 5000),
        np.array([1, 1, 1, 1, 10**14]),
    ):
        for alpha in (0.0, 0.5, 1.0):
            options = {"n_sample": 700, "sample_alpha": alpha, "cache_size": 1500}
            whole, shared = (
                kind(*parts, **options, rng=np.random.default_rng(3))
                for kind, parts in ((SampleStore, (support,)), (SharedStore, (support, group)))
            )
            whole.skip(2)
            shared.skip(2)
            for _ in range(5):
                np.testing.assert_array_equal(shared.next(), whole.next())


def main() -> None:
    torch.set_num_threads(1)
    with joined(torch.device("cpu")) as group:
        check_ranks(group)
        check_draws(group)
        largest = [check(settings, group) for settings in itertools.islice(all_settings(), 0, None, int(sys.argv[1]))]
        print(json.dumps({"rank": group.rank, "n_settings": len(largest), "largest": max(largest)}), flush=True)


if __name__ == "__main__":
    main()
