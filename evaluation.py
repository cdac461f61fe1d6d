"""Evaluation under the names that scripts import: ``batch_eval`` and its older name ``evaluate_gpu``."""

from gru4rec.api import batch_eval

evaluate_gpu = batch_eval

__all__ = ["batch_eval", "evaluate_gpu"]
