"""Work in bulk: more sessions than fit into memory, in runs that may be ended and go on."""
