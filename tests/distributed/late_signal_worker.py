"""Run by several processes: ``run.py``, of which one process is told to end while the first checkpoint is written."""

import signal
import sys
from typing import Any

from gru4rec.cli import run
from gru4rec.distributed.recorder import DistributedRecorder

save = DistributedRecorder._save


def save_and_be_told(recorder: DistributedRecorder, *given: Any) -> None:
    save(recorder, *given)
    if recorder._group.rank == recorder._group.n_ranks - 1:
        signal.raise_signal(signal.SIGTERM)


if __name__ == "__main__":
    DistributedRecorder._save = save_and_be_told  # type: ignore[method-assign]
    sys.exit(run.main())
