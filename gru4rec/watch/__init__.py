"""Watching the machine while it trains: :mod:`gru4rec.watch.machine` measures, :mod:`gru4rec.watch.hints` judges."""
