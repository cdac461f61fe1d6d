"""The service over HTTP: routes, keys, limits, logs, the playground, and worker processes."""
