"""Sessions in, items out."""
