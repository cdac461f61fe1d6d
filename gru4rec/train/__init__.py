"""Optimiser, training step and training loop."""
