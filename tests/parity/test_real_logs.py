"""Metrics on real logs against the official program's, means over seeds. Minutes long: run with ``-m slow``."""

from __future__ import annotations

import numpy as np
import pytest
from conftest import real_log

from gru4rec.api import GRU4Rec, batch_eval
from gru4rec.config import parse_parameter_string

XE = (
    "layers=100,batch_size=32,dropout_p_hidden=0.4,learning_rate=0.2,momentum=0.2,sample_alpha=0.5,logq=1.0,"
    "loss=cross-entropy,constrained_embedding=True,n_epochs=5"
)
BPR = (
    "layers=224,batch_size=80,dropout_p_embed=0.5,dropout_p_hidden=0.05,learning_rate=0.05,momentum=0.4,"
    "sample_alpha=0.4,bpreg=1.95,loss=bpr-max,elu_param=0.5,constrained_embedding=True,n_epochs=5"
)


@pytest.mark.slow
@pytest.mark.timeout(3000)
@pytest.mark.parametrize(
    ("log", "settings", "recall", "mrr", "tolerance", "seeds"),
    [
        ("bol", XE, 0.6111, 0.3162, 0.02, (1, 2, 3)),
        ("rsc15_100k", BPR, 0.5780, 0.2648, 0.02, (1, 2, 3)),
        ("yoochoose1_64", XE, 0.6516, 0.2823, 0.01, (1, 2, 3)),
        ("diginetica", BPR, 0.4903, 0.1443, 0.01, (1,)),
    ],
)
def test_mean_over_seeds_is_near_the_official_program(
    log: str, settings: str, recall: float, mrr: float, tolerance: float, seeds: tuple[int, ...]
) -> None:
    folder = real_log(log)
    found = []
    for seed in seeds:
        gru = GRU4Rec(device="cpu", **parse_parameter_string(settings), seed=seed).fit(folder / "train.tsv.gz")
        recalls, mrrs = batch_eval(gru, folder / "test.tsv.gz", cutoff=[20], mode="conservative")
        found.append((recalls[20], mrrs[20]))
        print(log, seed, found[-1])
    np.testing.assert_allclose(np.mean(found, axis=0), [recall, mrr], rtol=tolerance)
