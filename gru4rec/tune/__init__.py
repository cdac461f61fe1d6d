"""Search spaces of settings."""
