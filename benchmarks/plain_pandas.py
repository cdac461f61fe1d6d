"""What ``gru4rec prepare`` does to a raw log, as one would write it in pandas: the yardstick of prepare_times.py.

``python -m benchmarks.plain_pandas RAW FOLDER`` reads visitor, item, time; cuts at an hour; drops repeats; filters
sessions of two events and items of five to a fixpoint; splits at the last day, and once more; writes Parquet; prints
the most memory it held, in bytes.
"""

from __future__ import annotations

import sys
from pathlib import Path

import pandas as pd

from benchmarks.process_memory import peak_bytes

DAY_S = 86_400


def prepare(raw: Path, folder: Path) -> None:
    log = pd.read_csv(raw).sort_values(["visitor", "time", "item"], kind="stable")
    starts = (log["visitor"] != log["visitor"].shift()) | (log["time"].diff() > 3_600)
    log["SessionId"] = starts.cumsum()
    repeats = (log["SessionId"] == log["SessionId"].shift()) & (log["item"] == log["item"].shift())
    log = log.loc[~repeats, ["SessionId", "item", "time"]].set_axis(["SessionId", "ItemId", "Time"], axis=1)
    n_before = -1
    while n_before != len(log):
        n_before = len(log)
        log = log[log.groupby("SessionId")["ItemId"].transform("size") >= 2]
        log = log[log.groupby("ItemId")["Time"].transform("size") >= 5]
    end = log["Time"].max()
    train, test = split(log, end - DAY_S)
    inner, valid = split(train, end - 2 * DAY_S)
    folder.mkdir()
    for name, part in (("train_full", train), ("test", test), ("train_tr", inner), ("train_valid", valid)):
        part.to_parquet(folder / f"{name}.parquet", index=False)


def split(log: pd.DataFrame, cut: int) -> tuple[pd.DataFrame, pd.DataFrame]:
    start = log.groupby("SessionId")["Time"].transform("min")
    early = log[log["Time"] < cut]
    early = early[early.groupby("SessionId")["ItemId"].transform("size") >= 2]
    late = log[(start >= cut) & log["ItemId"].isin(early["ItemId"].unique())]
    return early, late[late.groupby("SessionId")["ItemId"].transform("size") >= 2]


if __name__ == "__main__":
    prepare(Path(sys.argv[1]), Path(sys.argv[2]))
    print(peak_bytes())
