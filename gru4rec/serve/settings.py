"""What a service is told when it starts: one value that goes to its workers whole."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, get_args

SearchChoice = Literal["auto", "dense", "float32", "bf16", "int8"]
SEARCH_CHOICES: tuple[SearchChoice, ...] = get_args(SearchChoice)
StateType = Literal["float32", "float16"]
STATE_TYPES: tuple[StateType, ...] = get_args(StateType)


@dataclass(frozen=True)
class Limits:
    """What one request, one session and the queue may take.

    Attributes:
        k: Longest list.
        session_items: Clicks of a session that is sent whole; a session that is kept remembers as many ids.
        sessions_a_request: Sessions in one request.
        body_bytes: Size of a request's body.
        body_s: Seconds for a body to arrive.
        wait_ms: Estimated wait, in milliseconds, above which requests are turned away (429).
        answer_s: Seconds after which a request that still waits is given up (503).
    """

    k: int = 100
    session_items: int = 500
    sessions_a_request: int = 100
    body_bytes: int = 1_000_000
    body_s: float = 5.0
    wait_ms: float = 50.0
    answer_s: float = 2.0


@dataclass(frozen=True)
class SessionSettings:
    """Where sessions are kept, and for how long.

    Attributes:
        redis_url: The Redis that workers and machines share; None: the memory of this process.
        redis_prefix: Before each key.
        redis_timeout_s: For connecting and for an answer.
        ttl_s: Seconds after the last click for which a session is kept.
        memory_bytes: Of this process; the sessions that were not used for longest go first.
        state_type: How hidden states are kept.
    """

    redis_url: str | None = None
    redis_prefix: str = "gru4rec:"
    redis_timeout_s: float = 0.1
    ttl_s: float = 1800.0
    memory_bytes: int = 256 * 2**20
    state_type: StateType = "float32"


@dataclass(frozen=True)
class ServeSettings:
    """All that a worker needs to start.

    Attributes:
        model: Model file.
        compare: A second one to compare with.
        catalogue: File that describes the items.
        catalogue_id: Its column of item ids.
        search: How lists are found.
        threads: Parts of a scan side by side.
        sessions: Where sessions are kept; None: nowhere, requests bring them.
        limits: Of requests.
        batch_sessions: Sessions that are scored at once.
        batch_wait_ms: How long a request waits for others, in milliseconds.
        api_keys: What opens /v1; none: it is open.
        admin_keys: What opens /admin; none: it is closed.
        cors_origins: Web origins whose pages may call the service.
        access_log: Whether each request gets a line.
        quiet: Whether nothing else is written down but warnings and errors.
        drain_s: Seconds between the request to end and the end, in which everything is still answered.
        metrics_dir: Folder in which workers put their metrics together; None: there is one.
        n_workers: Processes.
    """

    model: str
    compare: str | None = None
    catalogue: str | None = None
    catalogue_id: str = "ItemId"
    search: SearchChoice = "auto"
    threads: int = 1
    sessions: SessionSettings | None = field(default_factory=SessionSettings)
    limits: Limits = field(default_factory=Limits)
    batch_sessions: int = 64
    batch_wait_ms: float = 0.0
    api_keys: tuple[str, ...] = field(default=(), repr=False)
    admin_keys: tuple[str, ...] = field(default=(), repr=False)
    cors_origins: tuple[str, ...] = ()
    access_log: bool = False
    quiet: bool = False
    drain_s: float = 1.0
    metrics_dir: str | None = None
    n_workers: int = 1
