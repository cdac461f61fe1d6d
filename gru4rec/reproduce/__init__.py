"""Published results, and whether this package reaches them: from the raw files of a public log to a verdict."""
