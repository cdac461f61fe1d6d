"""What is looked at when: nothing of the test log decides settings, whoever asks for it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from compare.shop_plan import MODELS, write_plan, write_shop

from gru4rec.compare import fitting, job
from gru4rec.compare.job import compare
from gru4rec.compare.logs import Logs, cut, digest
from gru4rec.compare.plan import read_plan
from gru4rec.data.session_map import load_sessions
from gru4rec.data.sessions import Sessions


class Witness:
    """Writes down which sessions each piece of work was given, and lets it do its work."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.seen: list[tuple[str, Sessions]] = []
        self.logs: Logs | None = None
        self._monkeypatch = monkeypatch
        for module, name in ((job, "fit"), (job, "judged"), (job, "choose_settings"), (job, "measure")):
            self._watch(module, name)
        self._watch(fitting, "evaluate")  # whatever scores a log
        read_logs = job.read_logs

        def read(*given: Any, **options: Any) -> Logs:
            self.logs = read_logs(*given, **options)
            return self.logs

        monkeypatch.setattr(job, "read_logs", read)

    def _watch(self, module: Any, name: str) -> None:
        work: Callable[..., Any] = getattr(module, name)

        def watched(*given: Any, **options: Any) -> Any:
            self.seen += [(name, one) for one in (*given, *options.values()) if isinstance(one, Sessions)]
            return work(*given, **options)

        self._monkeypatch.setattr(module, name, watched)


def test_settings_are_fixed_by_the_validation_logs_alone_before_the_test_log_is_scored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_shop(tmp_path)
    witness = Witness(monkeypatch)
    compare(read_plan(write_plan(tmp_path, MODELS, tuning="trials = 2")), tmp_path / "out")
    logs, seen = witness.logs, witness.seen
    assert logs is not None
    final = next(place for place, (_, sessions) in enumerate(seen) if sessions is logs.train or sessions is logs.test)
    before, after = seen[:final], seen[final:]
    assert {name for name, _ in before} == {"fit", "judged", "evaluate", "choose_settings"}
    for name, sessions in before:
        assert sessions is (logs.train_tr if name == "fit" else logs.train_valid), name
    # 2 trials of Markov and V-SkNN each; then the two parts of the hybrid, fitted once more for the blend
    assert [name for name, _ in before].count("judged") == 4
    assert [name for name, _ in before].count("fit") == 6
    for name, sessions in after:
        assert sessions is (logs.train if name == "fit" else logs.test), name
    assert {name for name, _ in after} == {"fit", "measure", "evaluate"}, "nothing is chosen once the test log is seen"

    first, last = cut(load_sessions(tmp_path / "train.tsv"), 0.1)
    assert logs.train_tr is not None
    assert logs.train_valid is not None
    assert [digest(logs.train_tr), digest(logs.train_valid)] == [digest(first), digest(last)]
