"""Several models on the same log, compared; :mod:`gru4rec.compare.page` shows the results to people."""
