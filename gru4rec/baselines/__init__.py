"""Reference recommenders with the same scorer interface as the model."""
