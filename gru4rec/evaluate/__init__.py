"""Ranks, metrics and the evaluator."""
