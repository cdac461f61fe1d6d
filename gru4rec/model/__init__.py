"""Network, losses, initial weights, and the model as a scorer."""
