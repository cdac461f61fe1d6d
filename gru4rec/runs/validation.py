"""Validation after each epoch: which epoch is the best so far, and when enough of them brought nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from gru4rec.data.sessions import Sessions
from gru4rec.evaluate.evaluator import Scorer, evaluate
from gru4rec.evaluate.ranks import TieMode


@dataclass(frozen=True)
class Validation:
    """What is measured after each epoch.

    Attributes:
        sessions: The validation log, encoded with the model's vocabulary.
        metric: What decides: ``recall`` or ``mrr``, at the first cutoff.
        cutoffs: List lengths k.
        ties: What equal scores do to a rank.
        seed: Of ties that are broken by chance.
        patience: Epochs without a better metric after which training ends; 0: it does not.
    """

    sessions: Sessions
    metric: str = "recall"
    cutoffs: Sequence[int] = (20,)
    ties: TieMode = "standard"
    seed: int = 42
    patience: int = 0

    @property
    def name(self) -> str:
        """What decides, such as ``recall@20``."""
        return f"{self.metric}@{self.cutoffs[0]}"

    def measure(self, scorer: Scorer) -> dict[str, float]:
        """Return the metrics by name."""
        recall, mrr = evaluate(scorer, self.sessions).metrics(self.cutoffs, self.ties, seed=self.seed)
        return {f"{name}@{k}": values[k] for name, values in (("recall", recall), ("mrr", mrr)) for k in self.cutoffs}


@dataclass(frozen=True)
class Best:
    """The best epoch so far; 0 is none."""

    epoch: int = 0
    value: float = -1.0

    def after(self, epoch: int, value: float) -> Best:
        """Return the best epoch with another one; the earlier of equal ones."""
        return Best(epoch, value) if value > self.value else self
