"""What a service counts and times, for Prometheus. No ids, no addresses: numbers only."""

from __future__ import annotations

from typing import Any

from gru4rec.serve.batcher import Turn

_SECONDS = (0.0005, 0.001, 0.002, 0.003, 0.005, 0.0075, 0.01, 0.015, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)
_SESSIONS = (1, 2, 4, 8, 16, 32, 64, 128)


class Metrics:
    """Counters and histograms of one process; of several where they share a folder.

    Args:
        folder: Folder of all workers' numbers; None: this process is the only one. The environment variable
            ``PROMETHEUS_MULTIPROC_DIR`` has to name it before this is called the first time.
    """

    def __init__(self, folder: str | None = None) -> None:
        from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

        self._folder = folder
        registry = CollectorRegistry()
        self._registry = registry

        def counter(name: str, text: str, *labels: str) -> Any:
            return Counter(f"gru4rec_{name}", text, labels, registry=registry)

        def gauge(name: str, text: str, *labels: str) -> Any:
            return Gauge(f"gru4rec_{name}", text, labels, registry=registry, multiprocess_mode="livesum")

        def histogram(name: str, text: str, buckets: tuple[float, ...], *labels: str) -> Any:
            return Histogram(f"gru4rec_{name}", text, labels, registry=registry, buckets=buckets)

        self.requests = counter("requests", "Requests by route and status.", "route", "status")
        self.request_seconds = histogram("request_seconds", "From the request's head to its answer.", _SECONDS, "route")
        self.stage_seconds = histogram(
            "stage_seconds", "Store, wait for the scoring thread, read clicks, search lists.", _SECONDS, "stage"
        )
        self.batch_sessions = histogram("batch_sessions", "Sessions scored at once.", _SESSIONS)
        self.waiting = gauge("waiting_sessions", "Sessions accepted and not answered.")
        self.sessions = gauge("kept_sessions", "Sessions in the memory of the process.")
        self.shed = counter("shed_requests", "Requests turned away because too much waited.")
        self.too_late = counter("late_requests", "Requests given up because they waited too long.")
        self.degraded = counter("degraded_requests", "Clicks answered without their session.")
        self.store_failures = counter("store_failures", "Questions the session store did not answer.")
        self.conflicts = counter("session_conflicts", "Clicks that were taken again, another one having come between.")
        self.replayed = counter("replayed_sessions", "Sessions read again from their clicks after a reload.")
        self.unknown_items = counter("unknown_items", "Clicks on items the model does not know.")
        self.reloads = counter("reloads", "Attempts to load a model.", "result")
        self.model = gauge("model_workers", "Workers that serve a model, by version.", "name", "version")

    def note_turn(self, turn: Turn) -> None:
        """Count a turn of the scoring thread."""
        self.batch_sessions.observe(turn.n_sessions)
        for wait_s in turn.wait_s:
            self.stage_seconds.labels("wait").observe(wait_s)
        self.stage_seconds.labels("read").observe(turn.read_s)
        if turn.search_s:
            self.stage_seconds.labels("search").observe(turn.search_s)

    def text(self) -> bytes:
        """Return all numbers as Prometheus reads them."""
        from prometheus_client import CollectorRegistry, generate_latest
        from prometheus_client.multiprocess import MultiProcessCollector

        if self._folder is None:
            return generate_latest(self._registry)
        together = CollectorRegistry()
        MultiProcessCollector(together, path=self._folder)  # type: ignore[no-untyped-call]
        return generate_latest(together)
