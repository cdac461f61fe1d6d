"""Run by several processes: ``run.py``, of which one process is told to end while the first checkpoint is written.

Process r is said to keep r + 1 quarters of a core busy.
"""

import os
import signal
import sys
from typing import Any

from gru4rec.cli import run
from gru4rec.distributed.recorder import DistributedRecorder
from gru4rec.watch.machine import MachineWatch, Sample

save, sample = DistributedRecorder._save, MachineWatch.sample


def save_and_be_told(recorder: DistributedRecorder, *given: Any) -> None:
    save(recorder, *given)
    if recorder._group.rank == recorder._group.n_ranks - 1:
        signal.raise_signal(signal.SIGTERM)


def sample_with_share(watch: MachineWatch) -> Sample:
    return sample(watch) | {"process_share": (int(os.environ["RANK"]) + 1) / 4}


if __name__ == "__main__":
    DistributedRecorder._save = save_and_be_told  # type: ignore[method-assign]
    MachineWatch.sample = sample_with_share  # type: ignore[method-assign]
    sys.exit(run.main())
