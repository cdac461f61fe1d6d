"""Training runs that are kept: a folder with settings, metrics, checkpoints and the model."""
