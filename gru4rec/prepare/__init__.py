"""From raw logs to honest splits: read, cut into sessions, filter, split by time, count what was dropped and why."""
